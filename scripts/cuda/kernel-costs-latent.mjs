/**
 * The launches between a layer's first norm and its output projection where attention is latent, absorbed
 * (backend/context_latent.cc). Used by kernel-costs.mjs.
 */
import { cost, gemm, gemmTileTokens, gemv, kvBytes, q8Bytes, weightBytes } from './kernel-cost-terms.mjs';

/**
 * @typedef {import('./kernel-cost-terms.mjs').ModelShape} ModelShape
 * @typedef {import('./kernel-cost-terms.mjs').LatentShape} LatentShape
 * @typedef {import('./kernel-cost-terms.mjs').Cost} Cost
 */

const rowsOfBlock = 16; // latent_attention.cu, up to 16 heads
const splitShare = 12; // backend/context_attention.cc: latents of a part over its sums

/**
 * @param {ModelShape} m
 * @param {LatentShape} l
 */
function widths(m, l) {
  return { row: l.rank + l.ropeDim, q: m.heads * (l.nopeDim + l.ropeDim) };
}

/**
 * @param {ModelShape} m
 * @param {LatentShape} l
 * @param {number} tokens
 * @returns {Cost[]}
 */
function rowCosts(m, l, tokens) {
  const { row, q } = widths(m, l);
  const written = m.heads * (l.nopeDim * q8Bytes + 4 * l.ropeDim);
  const forms = m.heads * (l.rank + m.headDim);
  return [
    cost(
      'latent_write',
      'fp32',
      10 * tokens * (row + q),
      tokens * ((4 + kvBytes) * row + 4 * q + written) + 4 * l.rank,
      m.layers,
    ),
    // Of what was attended to, and of the output projection's input.
    cost('prepare, both', 'fp32', 3 * tokens * forms, tokens * forms * (4 + q8Bytes), m.layers),
  ];
}

/**
 * @param {ModelShape} m
 * @param {LatentShape} l
 * @param {number} context positions before the token
 * @returns {Cost[]} one token
 */
export function latentDecode(m, l, context) {
  const { row, q } = widths(m, l);
  const sums = 2 * m.heads * (l.rank + 2) * 4;
  const positions = Math.max(192, Math.floor((splitShare * sums) / (kvBytes * row)));
  const splits = Math.min(32, Math.floor(context / positions) + 1);
  return [
    ...rowCosts(m, l, 1),
    gemv('latent and q', row + q, m.hidden, q8Bytes, 4, m.layers),
    headMatrices('gemv q4_0: keyUp', m, l.rank, l.nopeDim, 1),
    // Queries and weights are sums of two f16.
    cost(
      'latent_attention + merge',
      'f16',
      2 * 2 * m.heads * (row + l.rank) * context,
      kvBytes * row * context + 4 * m.heads * (row + l.rank),
      m.layers,
      splits * sums,
    ),
    headMatrices('gemv q4_0: valueUp', m, m.headDim, l.rank, 1),
  ];
}

/**
 * @param {ModelShape} m
 * @param {LatentShape} l
 * @param {number} tokens of one new sequence
 * @returns {Cost[]}
 */
export function latentPrefill(m, l, tokens) {
  const { row, q } = widths(m, l);
  const tiles = Math.ceil(tokens / Math.max(Math.floor(rowsOfBlock / m.heads), 1));
  const once = kvBytes * row * tokens;
  return [
    ...rowCosts(m, l, tokens),
    gemm('latent and q', tokens, row + q, m.hidden, 4, m.layers),
    headMatrices('gemm q4_0: keyUp', m, l.rank, l.nopeDim, tokens),
    // A query sees half of the keys on average.
    cost(
      'latent_attention f16',
      'f16',
      (2 * 2 * m.heads * (row + l.rank) * tokens * tokens) / 2,
      once + 4 * m.heads * (row + l.rank) * tokens,
      m.layers,
      once * Math.max((tiles + 1) / 2 - 1, 0),
    ),
    headMatrices('gemm q4_0: valueUp', m, m.headDim, l.rank, tokens),
  ];
}

/**
 * @param {string} name
 * @param {ModelShape} m
 * @param {number} rows of each head
 * @param {number} cols
 * @param {number} tokens
 * @returns {Cost} a matrix of each head times the head's rows
 */
function headMatrices(name, m, rows, cols, tokens) {
  const weights = m.heads * rows * cols * weightBytes.q4_0;
  return cost(
    name,
    tokens === 1 ? 'dp4a' : 'int8',
    2 * m.heads * rows * cols * tokens,
    weights + tokens * m.heads * (cols * q8Bytes + 4 * rows),
    m.layers,
    (Math.ceil(tokens / gemmTileTokens) - 1) * weights,
  );
}
