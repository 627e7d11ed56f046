/** What attention keeps of a position and computes with it. Pure arithmetic, for whoever accounts memory and time. */
import type { AttentionSpec, LayerSpec } from './model-spec.js';

/** Values that the KV cache holds per position of one layer. */
export function kvValuesPerToken({ latent, numKvHeads, headDim }: AttentionSpec): number {
  return latent === undefined ? 2 * numKvHeads * headDim : latent.keyValueRank + latent.ropeHeadDim;
}

/** Values in a lane group of a delta rule's state; kDeltaLanes of kernels/ops.h. */
const DELTA_LANES = 16;

/** Floats that a layer with a state keeps of each sequence, whatever its length. */
export function stateValuesPerSequence({ recurrent }: Pick<LayerSpec, 'recurrent'>): number {
  if (recurrent === undefined) return 0;
  const aligned = (values: number) => Math.ceil(values / DELTA_LANES) * DELTA_LANES;
  const rows = recurrent.convWidth - 1;
  if (recurrent.kind === 'short-conv') return aligned(rows * recurrent.channels);
  const { numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim } = recurrent;
  const channels = 2 * numKeyHeads * keyHeadDim + numValueHeads * valueHeadDim;
  return aligned(rows * channels) + numValueHeads * keyHeadDim * aligned(valueHeadDim);
}

/** Multiply-adds of one token with the state of a layer that has one: convolution, and reads and updates of a matrix. */
export function stateMacsPerToken({ recurrent }: Pick<LayerSpec, 'recurrent'>): number {
  if (recurrent === undefined) return 0;
  if (recurrent.kind === 'short-conv') return recurrent.convWidth * recurrent.channels;
  const { numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim, convWidth } = recurrent;
  const channels = 2 * numKeyHeads * keyHeadDim + numValueHeads * valueHeadDim;
  // S^T k, S^T q, and S * decay + k d^T.
  return convWidth * channels + 4 * numValueHeads * keyHeadDim * valueHeadDim;
}

/** Multiply-adds of one query token and one position of one layer, over all heads. */
export function attentionMacsPerPair({ latent, numHeads, headDim }: AttentionSpec): number {
  const perHead = latent === undefined ? 2 * headDim : 2 * latent.keyValueRank + latent.ropeHeadDim;
  return numHeads * perHead;
}
