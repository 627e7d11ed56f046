/**
 * What a model weighs, from its shapes alone: parameters in all and per token, bytes by kind, bytes of KV cache and
 * of weights read per decoded token. Called by load.ts for model.inspect and by the command line. Reads no weights.
 */
import { storedBytes } from '../model/dtypes.js';
import { kvValuesPerToken, stateValuesPerSequence } from '../model/kv-shape.js';
import type { ModelSpec, WeightRole, WeightSource } from '../model/model-spec.js';
import type { OpenedModel } from '../model/open-model.js';

/** Kinds of weights, in the order in which they are told. */
const KINDS = [
  'embedding',
  'attention',
  'dense ffn',
  'shared experts',
  'router',
  'experts',
  'lm head',
  'norms',
] as const;
export type WeightKind = (typeof KINDS)[number];

export type ModelFacts = {
  architecture: string;
  layers: number;
  moeLayers: number;
  hiddenSize: number;
  vocabSize: number;
  maxPositions: number;
  tiedEmbeddings: boolean;
  /** Largest over the layers; 0 where no layer has experts. */
  numExperts: number;
  numExpertsPerTok: number;
  moeIntermediateSize: number;
  parameters: {
    total: number;
    /** What one token passes: all but the experts that its router does not choose. */
    active: number;
  };
  /** As stored in the checkpoint. */
  sizeBytes: { total: number; byKind: Record<WeightKind, number>; byDtype: Record<string, number> };
  /** One expert of one layer, all its matrices. */
  expertBytes: number;
  /** KV cache of one token over all layers, 16-bit. */
  kvBytesPerToken: number;
  /** States of one sequence over all layers that have them, 32-bit, whatever its length. */
  stateBytesPerSequence: number;
  /** Weights read to decode one token at batch 1, without the KV cache. */
  readBytesPerToken: number;
};

/** Facts of an opened model. */
export function modelFacts(model: Pick<OpenedModel, 'spec' | 'weights' | 'tensors'>): ModelFacts {
  const { spec } = model;
  const byKind = Object.fromEntries(KINDS.map((kind) => [kind, 0])) as Record<WeightKind, number>;
  const byDtype: Record<string, number> = {};
  const sums = { parameters: 0, active: 0, read: 0, total: 0, oneExpert: 0 };
  for (const weight of model.weights) {
    const dtype = model.tensors.get(weight.tensor)?.dtype ?? 'f32';
    const sizeBytes = storedBytes(dtype, weight.rows, weight.cols) ?? 0;
    const share = shareOfToken(spec, weight);
    byKind[kindOf(weight.role)] += sizeBytes;
    byDtype[dtype] = (byDtype[dtype] ?? 0) + sizeBytes;
    sums.total += sizeBytes;
    sums.parameters += weight.rows * weight.cols;
    sums.active += weight.rows * weight.cols * share;
    sums.read += readBytes(spec, weight, sizeBytes, share);
    if (weight.expert === 0 && weight.layer === firstMoeLayer(spec)) sums.oneExpert += sizeBytes;
  }
  return {
    ...shapeFacts(spec),
    parameters: { total: sums.parameters, active: Math.round(sums.active) },
    sizeBytes: { total: sums.total, byKind, byDtype },
    expertBytes: sums.oneExpert,
    kvBytesPerToken: spec.layers.reduce((sum, { attention }) => sum + 2 * kvValuesPerToken(attention), 0),
    stateBytesPerSequence: spec.layers.reduce((sum, layer) => sum + 4 * stateValuesPerSequence(layer), 0),
    readBytesPerToken: Math.round(sums.read),
  };
}

function shapeFacts(spec: ModelSpec) {
  const moe = spec.layers.flatMap(({ ffn }) => (ffn.kind === 'moe' ? [ffn] : []));
  const most = (values: number[]) => values.reduce((left, right) => Math.max(left, right), 0);
  return {
    architecture: spec.architecture,
    layers: spec.layers.length,
    moeLayers: moe.length,
    hiddenSize: spec.hiddenSize,
    vocabSize: spec.vocabSize,
    maxPositions: spec.maxPositions,
    tiedEmbeddings: spec.tiedEmbeddings,
    numExperts: most(moe.map((ffn) => ffn.numExperts)),
    numExpertsPerTok: most(moe.map((ffn) => ffn.numExpertsPerTok)),
    moeIntermediateSize: most(moe.map((ffn) => ffn.intermediateSize)),
  };
}

/** Of an embedding one row is read, unless it is the lm_head as well. */
function readBytes(spec: ModelSpec, { role, rows }: WeightSource, sizeBytes: number, share: number): number {
  return role === 'embedding' && !spec.tiedEmbeddings ? sizeBytes / rows : sizeBytes * share;
}

/** The share of a weight that one token passes: topK / experts for experts, else all of it. */
function shareOfToken(spec: ModelSpec, { layer, expert }: WeightSource): number {
  const ffn = spec.layers[layer]?.ffn;
  return expert >= 0 && ffn?.kind === 'moe' ? ffn.numExpertsPerTok / ffn.numExperts : 1;
}

function firstMoeLayer(spec: ModelSpec): number {
  return spec.layers.findIndex(({ ffn }) => ffn.kind === 'moe');
}

function kindOf(role: WeightRole): WeightKind {
  if (/norm|layerScale/i.test(role)) return 'norms';
  if (role === 'embedding') return 'embedding';
  if (role.startsWith('router')) return 'router';
  if (role.startsWith('lmHead')) return 'lm head';
  if (role.startsWith('shared')) return 'shared experts';
  if (role.startsWith('expert')) return 'experts';
  if (/^(query|key|value|output|latent|attentionSinks|conv|delta)/.test(role)) return 'attention';
  return 'dense ffn';
}
