/**
 * The simulator's model shape of a real checkpoint: sizes by role from its tensor index, without reading weights.
 * Called by plan.ts for a folder or a GGUF file.
 */
import { NearmoeError } from '../errors.js';
import { storedBytes } from '../model/dtypes.js';
import { attentionMacsPerPair, kvValuesPerToken } from '../model/kv-shape.js';
import type { WeightRole } from '../model/model-spec.js';
import type { OpenedModel } from '../model/open-model.js';
import type { LayerShape, ModelShape } from '../sim/models.js';

/** KV cache in 16 bits. */
const KV_VALUE_BYTES = 2;

const ATTENTION: ReadonlySet<WeightRole> = new Set([
  'query',
  'key',
  'value',
  'output',
  'queryDown',
  'latentDown',
  'keyUp',
  'valueUp',
  'outputGate',
  'convGate',
  'convInput',
  'deltaBeta',
  'deltaDecay',
]);
const SHARED: ReadonlySet<WeightRole> = new Set(['sharedGate', 'sharedUp', 'sharedDown']);
const EXPERT: ReadonlySet<WeightRole> = new Set(['expertGate', 'expertUp', 'expertDown']);
const HEAD: ReadonlySet<WeightRole> = new Set(['lmHead']);
const FEED_FORWARD: ReadonlySet<WeightRole> = new Set(['router', 'gate', 'up', 'down']);

/** Throws ERR_MODEL_UNSUPPORTED for a model without experts. */
export function checkpointShape({ spec, weights, tensors, path }: OpenedModel): ModelShape {
  const sizeOf = (roles: ReadonlySet<WeightRole>, layer?: number) =>
    weights.reduce((sum, { role, layer: own, tensor, rows, cols }) => {
      if (!roles.has(role) || (layer !== undefined && own !== layer)) return sum;
      return sum + (storedBytes(tensors.get(tensor)?.dtype ?? 'f16', rows, cols) ?? 0);
    }, 0);
  const moeLayers = spec.layers.filter(({ ffn }) => ffn.kind === 'moe').length;
  const ffn = spec.layers.find((layer) => layer.ffn.kind === 'moe')?.ffn;
  if (ffn?.kind !== 'moe') {
    throw new NearmoeError(
      'ERR_MODEL_UNSUPPORTED',
      `${path} has no layer with experts; there is nothing to plan`,
    );
  }
  const layers = spec.layers.map((layer, index): LayerShape => {
    return {
      attentionBytes: sizeOf(ATTENTION, index),
      feedForwardBytes: sizeOf(FEED_FORWARD, index),
      sharedBytes: sizeOf(SHARED, index),
      kvBytesPerToken: kvValuesPerToken(layer.attention) * KV_VALUE_BYTES,
      attentionWidth: attentionMacsPerPair(layer.attention),
      hasExperts: layer.ffn.kind === 'moe',
    };
  });
  const embeddingBytes = sizeOf(new Set<WeightRole>(['embedding']));
  const attentionWeights = weights.reduce(
    (sum, { role, rows, cols }) => (ATTENTION.has(role) ? sum + rows * cols : sum),
    0,
  );
  return {
    name: path,
    hiddenSize: spec.hiddenSize,
    vocabSize: spec.vocabSize,
    headBytes: spec.tiedEmbeddings ? embeddingBytes : sizeOf(HEAD),
    embeddingBytes: spec.tiedEmbeddings ? 0 : embeddingBytes,
    layers,
    experts: ffn.numExperts,
    topK: ffn.numExpertsPerTok,
    expertIntermediateSize: ffn.intermediateSize,
    expertBytes: sizeOf(EXPERT) / (moeLayers * ffn.numExperts),
    expertFlops: 6 * spec.hiddenSize * ffn.intermediateSize,
    bytesPerDenseWeight: sizeOf(ATTENTION) / attentionWeights,
    spec,
  };
}
