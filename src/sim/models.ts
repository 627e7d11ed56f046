/**
 * Model shapes of the simulator: from models/*.json by name, or from the ModelSpec of a real checkpoint. Says how many
 * bytes and floating-point operations each part has; no weights are read, no times computed.
 */
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { OptionError } from '../errors.js';
import type { LayerSpec, ModelSpec } from '../model/model-spec.js';
import { type DataNode, readDataFile } from './data-file.js';

/** Sizes of one layer beside its experts. */
export type LayerShape = {
  /** Weights of attention (projections). */
  attentionBytes: number;
  /** Weights of the router, or of the dense feed-forward block. */
  feedForwardBytes: number;
  /** Weights of the expert that every token passes, 0 where there is none. */
  sharedBytes: number;
  kvBytesPerToken: number;
  /** Heads x head size: work of scores and values per attended position. */
  attentionWidth: number;
  hasExperts: boolean;
};

export type ModelShape = {
  name: string;
  hiddenSize: number;
  vocabSize: number;
  /** Embedding and head; the embedding's rows are not read in full. */
  headBytes: number;
  embeddingBytes: number;
  layers: readonly LayerShape[];
  experts: number;
  topK: number;
  expertIntermediateSize: number;
  /** Weights of one expert. */
  expertBytes: number;
  /** Floating-point operations of one token in one expert. */
  expertFlops: number;
  bytesPerDenseWeight: number;
  /** For engine/forward.ts. */
  spec: ModelSpec;
};

/** All bytes outside the experts. */
export function denseBytes(model: ModelShape): number {
  const layers = model.layers.reduce(
    (sum, layer) => sum + layer.attentionBytes + layer.feedForwardBytes + layer.sharedBytes,
    0,
  );
  return layers + model.headBytes + model.embeddingBytes;
}

export function moeLayerCount(model: ModelShape): number {
  return model.layers.filter((layer) => layer.hasExperts).length;
}

/** All bytes of experts. */
export function expertsBytes(model: ModelShape): number {
  return moeLayerCount(model) * model.experts * model.expertBytes;
}

export function kvBytes(model: ModelShape, tokens: number): number {
  return model.layers.reduce((sum, layer) => sum + layer.kvBytesPerToken, 0) * tokens;
}

const folder = fileURLToPath(new URL('./models/', import.meta.url));

/** Names that modelByName takes. */
export function modelNames(): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .map((name) => name.slice(0, -'.json'.length))
    .sort();
}

/** Throws OptionError for an unknown name, ModelFormatError for a wrong file. */
export function modelByName(name: string): ModelShape {
  const wanted = name.toLowerCase();
  if (!modelNames().includes(wanted)) {
    throw new OptionError('model', `one of ${modelNames().join(', ')}`, name);
  }
  return readModel(`${folder}${wanted}.json`);
}

/** Reads a model description. Throws ModelFormatError. */
export function readModel(path: string): ModelShape {
  const node = readDataFile(path);
  node.text('source');
  const hiddenSize = node.integer('hiddenSize', 1);
  const moe = node.node('moe');
  const experts = moe.integer('experts', 1);
  const topK = moe.integer('topK', 1);
  if (topK > experts) throw moe.wrong('topK', `an integer from 1 to ${experts}`);
  const intermediate = moe.integer('intermediateSize', 1);
  const denseLayers = node.integer('denseLayers');
  const layerCount = node.integer('layers', 1);
  if (denseLayers >= layerCount) throw node.wrong('denseLayers', `an integer from 0 to ${layerCount - 1}`);
  const bytesPerDenseWeight = node.number('denseBitsPerWeight', 1) / 8;
  const bytesPerExpertWeight = node.number('expertBitsPerWeight', 1) / 8;
  const attention = attentionShape(node.node('attention'), hiddenSize, bytesPerDenseWeight);
  const vocabSize = node.integer('vocabSize', 1);
  const tied = node.flag('tiedEmbeddings');
  const embeddingBytes = vocabSize * hiddenSize * bytesPerDenseWeight;
  const shared = moe.integer('sharedIntermediateSize');
  const matrixBytes = (columns: number) => hiddenSize * columns * bytesPerDenseWeight;
  const layers = Array.from({ length: layerCount }, (_, layer): LayerShape => {
    const dense = layer < denseLayers;
    return {
      ...attention,
      feedForwardBytes: dense
        ? 3 * matrixBytes(node.integer('denseIntermediateSize', 1))
        : matrixBytes(experts),
      sharedBytes: dense ? 0 : 3 * matrixBytes(shared),
      hasExperts: !dense,
    };
  });
  const parameters = 3 * hiddenSize * intermediate;
  return {
    name: node.text('name'),
    hiddenSize,
    vocabSize,
    headBytes: embeddingBytes,
    embeddingBytes: tied ? 0 : embeddingBytes,
    layers,
    experts,
    topK,
    expertIntermediateSize: intermediate,
    expertBytes: parameters * bytesPerExpertWeight,
    expertFlops: 2 * parameters,
    bytesPerDenseWeight,
    spec: specOf(node.text('name'), hiddenSize, vocabSize, layers, experts, topK, intermediate),
  };
}

type AttentionShape = Pick<LayerShape, 'attentionBytes' | 'kvBytesPerToken' | 'attentionWidth'>;

function attentionShape(node: DataNode, hiddenSize: number, bytesPerWeight: number): AttentionShape {
  const heads = node.integer('heads', 1);
  if (node.text('kind') === 'gqa') {
    const width = heads * node.integer('headDim', 1);
    const kvWidth = node.integer('kvHeads', 1) * node.integer('headDim', 1);
    return {
      attentionBytes: hiddenSize * (2 * width + 2 * kvWidth) * bytesPerWeight,
      kvBytesPerToken: 2 * kvWidth * bytesPerWeight,
      attentionWidth: 2 * width,
    };
  }
  if (node.text('kind') !== 'mla') throw node.wrong('kind', '"gqa" or "mla"');
  // Multi-head latent attention: keys and values are kept as one latent row and a rotated part.
  const nope = node.integer('nopeHeadDim', 1);
  const rope = node.integer('ropeHeadDim', 1);
  const value = node.integer('valueHeadDim', 1);
  const latent = node.integer('kvLoraRank', 1);
  const parameters =
    hiddenSize * heads * (nope + rope) +
    hiddenSize * (latent + rope) +
    latent * heads * (nope + value) +
    heads * value * hiddenSize;
  return {
    attentionBytes: parameters * bytesPerWeight,
    kvBytesPerToken: (latent + rope) * bytesPerWeight,
    attentionWidth: heads * (nope + rope + value),
  };
}

/** A spec that the engine can run: layer kinds and counts are right, what only native reads is nominal. */
function specOf(
  name: string,
  hiddenSize: number,
  vocabSize: number,
  layers: readonly LayerShape[],
  numExperts: number,
  numExpertsPerTok: number,
  intermediateSize: number,
): ModelSpec {
  const attention: LayerSpec['attention'] = {
    kind: 'gqa',
    numHeads: 1,
    numKvHeads: 1,
    headDim: 2,
    qkNorm: 'none',
    qkvBias: false,
    outputBias: false,
    clipQkv: 0,
    scale: 1,
    slidingWindow: 0,
    rope: -1,
  };
  const router = { scoring: 'softmax', normTopkProb: false, jitterEps: 0 } as const;
  return {
    architecture: name,
    hiddenSize,
    vocabSize,
    maxPositions: 2 ** 20,
    norm: { kind: 'rms', eps: 1e-6 },
    ropes: [],
    layers: layers.map(({ hasExperts }) => ({
      attention,
      ffn: hasExperts
        ? { kind: 'moe', numExperts, numExpertsPerTok, intermediateSize, activation: 'silu', router }
        : { kind: 'dense', intermediateSize, activation: 'silu' },
    })),
    tiedEmbeddings: false,
    lmHeadBias: false,
    embeddingMultiplier: 1,
    residualMultiplier: 1,
    logitsMultiplier: 1,
  };
}
