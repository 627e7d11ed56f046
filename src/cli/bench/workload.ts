/**
 * What one measured request reads and multiplies, by formula from the opened model: the bytes of a decode step and the
 * multiply-accumulates of a prefill. Called by the bench command, which divides them by times. Measures nothing.
 */
import { dtypeTraits } from '../../model/dtypes.js';
import {
  attentionMacsPerPair,
  kvValuesPerToken,
  stateMacsPerToken,
  stateValuesPerSequence,
} from '../../model/kv-shape.js';
import type { WeightSource } from '../../model/model-spec.js';
import type { OpenedModel } from '../../model/open-model.js';
import { heldDtype } from '../../model/quantize-weights.js';
import type { KvDtype } from '../../options.js';

/** Sizes of the measured request. */
export type RequestShape = { promptTokens: number; genTokens: number; batch: number };

export type Workload = {
  /**
   * Weights that one decode step reads: every dense matrix and lm_head once, of each layer's experts as many as
   * `batch` tokens choose on average where the router favours none.
   */
  weightBytesPerStep: number;
  /** KV cache that one decode step reads, at the middle of the answer, and states that it reads and writes. */
  kvBytesPerStep: number;
  /** Products of the prompt's tokens with weight matrices; lm_head for the last token of each sequence only. */
  matmulMacs: number;
  /** Products of queries with keys and of probabilities with values, causal; those of layers with states. */
  attentionMacs: number;
  /** Share of matmulMacs that quantised matrices take: these run on 8-bit integers. */
  int8Share: number;
};

const STATE_VALUE_BYTES = 4;
const KV_VALUE_BYTES = { f32: 4, f16: 2, bf16: 2, q8_0: 34 / 32 } as const;

export function workloadOf(
  model: Pick<OpenedModel, 'spec' | 'weights' | 'tensors'>,
  { promptTokens, genTokens, batch }: RequestShape,
  kvDtype: KvDtype,
): Workload {
  const { spec } = model;
  let weightBytesPerStep = 0;
  let matmulMacs = 0;
  let int8Macs = 0;
  for (const weight of model.weights) {
    const dtype = heldDtype(weight, model.tensors);
    const { blockCols, blockBytes } = dtypeTraits(dtype);
    const sizeBytes = weight.rows * Math.ceil(weight.cols / blockCols) * blockBytes;
    weightBytesPerStep += sizeBytes * readShare(model, weight, batch);
    const macs = batch * weight.rows * weight.cols * timesUsed(model, weight, promptTokens);
    matmulMacs += macs;
    if (blockCols > 1) int8Macs += macs;
  }
  let kvValues = 0;
  let attentionMacs = 0;
  let stateBytes = 0;
  for (const layer of spec.layers) {
    kvValues += kvValuesPerToken(layer.attention);
    stateBytes += STATE_VALUE_BYTES * stateValuesPerSequence(layer);
    const pairs = (promptTokens * (promptTokens + 1)) / 2;
    const macs = attentionMacsPerPair(layer.attention) * pairs + stateMacsPerToken(layer) * promptTokens;
    attentionMacs += batch * macs;
  }
  const position = promptTokens + genTokens / 2;
  return {
    weightBytesPerStep: Math.round(weightBytesPerStep),
    kvBytesPerStep: Math.round(batch * (position * kvValues * KV_VALUE_BYTES[kvDtype] + 2 * stateBytes)),
    matmulMacs,
    attentionMacs,
    int8Share: matmulMacs > 0 ? int8Macs / matmulMacs : 0,
  };
}

/** Of an embedding one row per sequence is read, unless it is the lm_head as well. */
function readShare({ spec }: Pick<OpenedModel, 'spec'>, weight: WeightSource, batch: number): number {
  if (weight.role === 'embedding' && !spec.tiedEmbeddings) return Math.min(1, batch / weight.rows);
  const ffn = spec.layers[weight.layer]?.ffn;
  if (weight.expert < 0 || ffn?.kind !== 'moe') return 1;
  return 1 - (1 - ffn.numExpertsPerTok / ffn.numExperts) ** batch;
}

/** By how many of a prompt's tokens a matrix is multiplied. */
function timesUsed({ spec }: Pick<OpenedModel, 'spec'>, weight: WeightSource, promptTokens: number): number {
  if (weight.rows === 1 && weight.role !== 'sharedExpertGate') return 0;
  if (weight.role === 'embedding') return spec.tiedEmbeddings ? 1 : 0;
  if (weight.role === 'lmHead') return 1;
  const ffn = spec.layers[weight.layer]?.ffn;
  return weight.expert >= 0 && ffn?.kind === 'moe'
    ? (promptTokens * ffn.numExpertsPerTok) / ffn.numExperts
    : promptTokens;
}
