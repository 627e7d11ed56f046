/** What attention keeps of a position and computes with it. Pure arithmetic, for whoever accounts memory and time. */
import type { AttentionSpec } from './model-spec.js';

/** Values that the KV cache holds per position of one layer. */
export function kvValuesPerToken({ latent, numKvHeads, headDim }: AttentionSpec): number {
  return latent === undefined ? 2 * numKvHeads * headDim : latent.keyValueRank + latent.ropeHeadDim;
}

/** Multiply-adds of one query token and one position of one layer, over all heads. */
export function attentionMacsPerPair({ latent, numHeads, headDim }: AttentionSpec): number {
  const perHead = latent === undefined ? 2 * headDim : 2 * latent.keyValueRank + latent.ropeHeadDim;
  return numHeads * perHead;
}
