/**
 * What each kernel launch of a step moves and computes, by formula from its source, and the least time that
 * follows on three devices. Called by compile-all.mjs for docs/cuda-kernels.md. Knows neither caches nor
 * launch times: a bound, no forecast.
 *
 * `minimumBytes`: every input and output once. `movedBytes`: weights, keys and values as often as blocks ask
 * for them, with no cache; activations, which many blocks read and any L2 holds, once.
 */

import { cost, gemm, gemmTileTokens, gemv, kvBytes, q8Bytes, weightBytes } from './kernel-cost-terms.mjs';
import { latentDecode, latentPrefill } from './kernel-costs-latent.mjs';

/**
 * @typedef {import('./kernel-cost-terms.mjs').ModelShape} ModelShape
 * @typedef {import('./kernel-cost-terms.mjs').Device} Device
 * @typedef {import('./kernel-cost-terms.mjs').Cost} Cost
 */

/** From the models' published config.json. @type {ModelShape[]} */
export const models = [
  {
    ...{ name: 'OLMoE-1B-7B', hidden: 2048, layers: 16, heads: 16, kvHeads: 16, headDim: 128 },
    ...{ experts: 64, topK: 8, expertSize: 1024, vocab: 50304 },
  },
  {
    ...{ name: 'Qwen3-30B-A3B', hidden: 2048, layers: 48, heads: 32, kvHeads: 4, headDim: 128 },
    ...{ experts: 128, topK: 8, expertSize: 768, vocab: 151936 },
  },
  {
    ...{ name: 'DeepSeek-V2-Lite', hidden: 2048, layers: 27, heads: 16, kvHeads: 16, headDim: 128 },
    ...{ experts: 64, topK: 6, expertSize: 1408, vocab: 102400, sharedSize: 2816 },
    ...{ denseLayers: 1, denseSize: 10944, latent: { rank: 512, ropeDim: 64, nopeDim: 128 } },
  },
];

/**
 * Vendors' data sheets: memory bandwidth; dense peaks in 10^12 operations a second. RTX 5080: 84
 * multiprocessors at 2.617 GHz with 128 FP32, 256 bf16 or f16 (float sums) and 1024 int8 multiply-adds a cycle
 * each. Jetson AGX Orin 64 GB: 2048 cores at 1.3 GHz, 85 int8 and 42.5 FP16 TOPS of the GPU. H100 SXM: 67, 989 and
 * 1979. dp4a is taken as four products at the rate of integer multiplication, half that of FP32.
 * @type {Device[]}
 */
export const devices = [
  {
    ...{ name: 'RTX 5080', bandwidthGBs: 960 },
    peakTflops: { fp32: 56.3, dp4a: 112.6, bf16: 112.6, f16: 112.6, int8: 450 },
  },
  {
    ...{ name: 'Orin', bandwidthGBs: 204.8 },
    peakTflops: { fp32: 5.3, dp4a: 10.6, bf16: 42.5, f16: 42.5, int8: 85 },
  },
  {
    ...{ name: 'H100', bandwidthGBs: 3350 },
    peakTflops: { fp32: 67, dp4a: 134, bf16: 989, f16: 989, int8: 1979 },
  },
];

const expertTileTokens = 32; // expert_gemm.cu
const prefillTileRows = 64; // attention_prefill.cu, head dims up to 128
const topKCandidates = 64;
const splitPositions = 192; // backend/context_attention.cc

/** @param {ModelShape} m */
const moeLayers = (m) => m.layers - (m.denseLayers ?? 0);

/**
 * @param {ModelShape} m
 * @param {number} tokens
 * @returns {Cost[]} what decode and prefill of every layer share
 */
function layerCosts(m, tokens) {
  const norm = tokens * m.hidden * (4 + 4 + q8Bytes) + 4 * m.hidden;
  const routing = tokens * (4 * m.experts + 8 * m.topK);
  return [
    cost('norm', 'fp32', 4 * tokens * m.hidden, norm, 2 * m.layers),
    cost('router', 'fp32', 4 * tokens * m.experts, routing, moeLayers(m)),
  ];
}

/**
 * @param {ModelShape} m
 * @param {number} tokens
 * @returns {Cost[]} what decode and prefill of a layer with keys and values of its own share
 */
function headCosts(m, tokens) {
  const q = m.heads * m.headDim;
  const kv = m.kvHeads * m.headDim;
  const written = tokens * (8 * q + (8 + 2 * kvBytes) * kv + 4 * m.headDim);
  return [
    cost('rope_kv_write', 'fp32', 10 * tokens * (q + kv), written, m.layers),
    cost('prepare', 'fp32', 3 * tokens * q, tokens * q * (4 + q8Bytes), m.layers),
  ];
}

/**
 * @param {ModelShape} m
 * @param {number} context
 * @returns {Cost[]}
 */
function headDecode(m, context) {
  const q = m.heads * m.headDim;
  const kv = m.kvHeads * m.headDim;
  const splits = Math.min(32, Math.floor(context / splitPositions) + 1);
  const kvRead = 2 * kvBytes * kv * context * Math.ceil(m.heads / m.kvHeads / 8);
  const sums = 2 * splits * m.heads * (m.headDim + 2) * 4;
  return [
    ...headCosts(m, 1),
    gemv('q, k, v', q + 2 * kv, m.hidden, q8Bytes, 4, m.layers),
    cost('attention_decode + merge', 'fp32', 4 * q * context, kvRead + 8 * q, m.layers, sums),
  ];
}

/**
 * @param {ModelShape} m
 * @param {string} what
 * @param {number} size of all the experts' hidden rows together
 * @param {number} perStep
 * @returns {Cost[]} one token
 */
function expertDecode(m, what, size, perStep) {
  const { q4_0: w } = weightBytes;
  const up = 2 * size * m.hidden * w + m.hidden * q8Bytes + size * q8Bytes;
  const down = size * m.hidden * w + size * q8Bytes + 8 * m.hidden;
  return [
    cost(`expert_gate_up q4_0${what}`, 'dp4a', 4 * size * m.hidden, up, perStep),
    cost(`expert_down q4_0${what}`, 'dp4a', 2 * size * m.hidden, down, perStep),
  ];
}

/**
 * @param {ModelShape} m
 * @param {number} context positions before the token
 * @returns {Cost[]} one token, one step
 */
export function decodeCosts(m, context) {
  const w = weightBytes.q4_0;
  return [
    cost('embedding', 'fp32', 2 * m.hidden, m.hidden * (w + 4), 1, m.hidden * w * 7),
    ...layerCosts(m, 1),
    ...(m.latent ? latentDecode(m, m.latent, context) : headDecode(m, context)),
    gemv('output', m.hidden, m.heads * m.headDim, q8Bytes, 8, m.layers),
    gemv('router', m.experts, m.hidden, 4, 4, moeLayers(m), 'f32'),
    ...expertDecode(m, '', m.topK * m.expertSize, moeLayers(m)),
    ...(m.sharedSize ? expertDecode(m, ': shared', m.sharedSize, moeLayers(m)) : []),
    ...(m.denseSize ? expertDecode(m, ': dense layer', m.denseSize, m.denseLayers ?? 0) : []),
    gemv('lm_head', m.vocab, m.hidden, q8Bytes, 4, 1, 'q6_k'),
    cost('top_k', 'fp32', 10 * m.vocab, 4 * m.vocab + 8 * topKCandidates, 1),
  ];
}

/**
 * @param {ModelShape} m
 * @param {number} tokens
 * @returns {Cost[]}
 */
function headPrefill(m, tokens) {
  const q = m.heads * m.headDim;
  const kv = m.kvHeads * m.headDim;
  const attentionTiles = Math.ceil((tokens * m.heads) / m.kvHeads / prefillTileRows);
  const kvOnce = 2 * kvBytes * kv * tokens;
  return [
    ...headCosts(m, tokens),
    gemm('q, k, v', tokens, q + 2 * kv, m.hidden, 4, m.layers),
    // Three products of bf16 parts; a query sees half of the keys on average.
    cost(
      'attention_prefill f16',
      'bf16',
      (3 * 4 * q * tokens * tokens) / 2,
      kvOnce + 8 * q * tokens,
      m.layers,
      kvOnce * Math.max((attentionTiles + 1) / 2 - 1, 0),
    ),
  ];
}

/**
 * @param {ModelShape} m
 * @param {string} what
 * @param {number} experts
 * @param {number} size of one expert's hidden row
 * @param {number} tokens of the step
 * @param {number} topK
 * @param {number} perStep
 * @returns {Cost[]} every expert gets its even share of the pairs
 */
function expertPrefill(m, what, experts, size, tokens, topK, perStep) {
  const pairs = tokens * topK;
  const passes = Math.ceil(pairs / experts / expertTileTokens);
  const weights = experts * size * m.hidden * weightBytes.q4_0;
  return [
    cost(
      `expert_gemm_gate_up q4_0${what}`,
      'int8',
      4 * pairs * m.hidden * size,
      2 * weights + tokens * m.hidden * q8Bytes + 4 * pairs * size,
      perStep,
      2 * weights * (passes - 1),
    ),
    cost(
      `expert_gemm_down q4_0${what}`,
      'int8',
      2 * pairs * m.hidden * size,
      weights + pairs * (size * q8Bytes + 4 * m.hidden),
      perStep,
      weights * (passes - 1),
    ),
    cost(
      `combine${what}`,
      'fp32',
      2 * pairs * m.hidden,
      4 * pairs * m.hidden + 8 * tokens * m.hidden,
      perStep,
    ),
  ];
}

/**
 * @param {ModelShape} m
 * @param {number} tokens of one new sequence
 * @returns {Cost[]} one step
 */
export function prefillCosts(m, tokens) {
  const pairs = tokens * m.topK;
  const router = 4 * m.experts * m.hidden;
  return [
    ...layerCosts(m, tokens),
    ...(m.latent ? latentPrefill(m, m.latent, tokens) : headPrefill(m, tokens)),
    gemm('output', tokens, m.hidden, m.heads * m.headDim, 8, m.layers),
    cost(
      'gemm f32: router',
      'bf16',
      6 * m.experts * m.hidden * tokens,
      router + 4 * tokens * (m.hidden + m.experts),
      moeLayers(m),
      (Math.ceil(tokens / gemmTileTokens) - 1) * router,
    ),
    cost('dispatch', 'fp32', pairs, 8 * pairs + 4 * m.experts, moeLayers(m)),
    ...expertPrefill(m, '', m.experts, m.expertSize, tokens, m.topK, moeLayers(m)),
    ...(m.sharedSize ? expertPrefill(m, ': shared', 1, m.sharedSize, tokens, 1, moeLayers(m)) : []),
    ...(m.denseSize ? expertPrefill(m, ': dense layer', 1, m.denseSize, tokens, 1, m.denseLayers ?? 0) : []),
  ];
}

/**
 * @param {Cost} item
 * @param {Device} device
 * @returns {number} least time of one launch in microseconds
 */
export function boundUs(item, device) {
  const memoryUs = item.minimumBytes / (device.bandwidthGBs * 1e3);
  return Math.max(memoryUs, item.ops / (device.peakTflops[item.unit] * 1e6));
}
