/**
 * What each kernel launch of a step moves and computes, by formula from its source, and the least time that
 * follows on three devices. Called by compile-all.mjs for docs/cuda-kernels.md. Knows neither caches nor
 * launch times: a bound, no forecast.
 *
 * `minimumBytes`: every input and output once. `movedBytes`: weights, keys and values as often as blocks ask
 * for them, with no cache; activations, which many blocks read and any L2 holds, once.
 */

/**
 * @typedef {{ name: string, hidden: number, layers: number, heads: number, kvHeads: number, headDim: number,
 *   experts: number, topK: number, expertSize: number, vocab: number }} ModelShape
 * @typedef {'fp32' | 'dp4a' | 'int8' | 'bf16'} Unit which arithmetic units do the work
 * @typedef {{ name: string, bandwidthGBs: number, peakTflops: Record<Unit, number> }} Device
 * @typedef {{ kernel: string, minimumBytes: number, movedBytes: number, ops: number, unit: Unit, perStep: number }} Cost
 * perStep: launches of this shape in a step
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
];

/**
 * Vendors' data sheets: memory bandwidth; dense peaks in 10^12 operations a second. RTX 5080: 84
 * multiprocessors at 2.617 GHz with 128 FP32, 256 bf16 (float sums) and 1024 int8 multiply-adds a cycle each.
 * Jetson AGX Orin 64 GB: 2048 cores at 1.3 GHz, 85 int8 and 42.5 FP16 TOPS of the GPU. H100 SXM: 67, 989 and
 * 1979. dp4a is taken as four products at the rate of integer multiplication, half that of FP32.
 * @type {Device[]}
 */
export const devices = [
  { name: 'RTX 5080', bandwidthGBs: 960, peakTflops: { fp32: 56.3, dp4a: 112.6, bf16: 112.6, int8: 450 } },
  { name: 'Orin', bandwidthGBs: 204.8, peakTflops: { fp32: 5.3, dp4a: 10.6, bf16: 42.5, int8: 85 } },
  { name: 'H100', bandwidthGBs: 3350, peakTflops: { fp32: 67, dp4a: 134, bf16: 989, int8: 1979 } },
];

/** Bytes of a weight in the packed layout; q4_0 everywhere but in the router (f32) and lm_head (q6_k). */
const weightBytes = { q4_0: 18 / 32, q6_k: 210 / 256, f32: 4 };
/** An int8 activation with its part of the block's {scale, scale * sum}. */
const q8Bytes = 1 + 8 / 32;
const kvBytes = 2; // f16
const gemmTileTokens = 64; // gemm.cu
const expertTileTokens = 32; // expert_gemm.cu
const prefillTileRows = 64; // attention_prefill.cu, head dims up to 128
const topKCandidates = 64;
const splitPositions = 192; // backend/context_attention.cc

/**
 * @param {string} kernel
 * @param {Unit} unit
 * @param {number} ops
 * @param {number} minimumBytes
 * @param {number} perStep
 * @param {number} [rereadBytes] beyond the minimum
 * @returns {Cost}
 */
function cost(kernel, unit, ops, minimumBytes, perStep, rereadBytes = 0) {
  return { kernel, unit, ops, minimumBytes, movedBytes: minimumBytes + rereadBytes, perStep };
}

/**
 * @param {ModelShape} m
 * @param {number} tokens
 * @param {number} perStep
 * @returns {Cost[]} what decode and prefill share, for one layer
 */
function layerCosts(m, tokens, perStep) {
  const q = m.heads * m.headDim;
  const kv = m.kvHeads * m.headDim;
  return [
    cost(
      'norm',
      'fp32',
      4 * tokens * m.hidden,
      tokens * m.hidden * (4 + 4 + q8Bytes) + 4 * m.hidden,
      2 * perStep,
    ),
    cost(
      'rope_kv_write',
      'fp32',
      10 * tokens * (q + kv),
      tokens * (8 * q + (8 + 2 * kvBytes) * kv + 4 * m.headDim),
      perStep,
    ),
    cost('prepare', 'fp32', 3 * tokens * q, tokens * q * (4 + q8Bytes), perStep),
    cost('router', 'fp32', 4 * tokens * m.experts, tokens * (4 * m.experts + 8 * m.topK), perStep),
  ];
}

/**
 * @param {ModelShape} m
 * @param {number} context positions before the token
 * @returns {Cost[]} one token, one step
 */
export function decodeCosts(m, context) {
  const q = m.heads * m.headDim;
  const kv = m.kvHeads * m.headDim;
  const { q4_0: w, q6_k: head, f32 } = weightBytes;
  const splits = Math.min(32, Math.floor(context / splitPositions) + 1);
  const kvRead = 2 * kvBytes * kv * context * Math.ceil(m.heads / m.kvHeads / 8);
  /** @type {(name: string, rows: number, cols: number, bytes: number, input: number, output: number, perStep: number, unit?: Unit) => Cost} */
  const gemv = (name, rows, cols, bytes, input, output, perStep, unit = 'dp4a') =>
    cost(name, unit, 2 * rows * cols, rows * cols * bytes + cols * input + rows * output, perStep);
  const hidden = m.topK * m.expertSize;
  return [
    cost('embedding', 'fp32', 2 * m.hidden, m.hidden * (w + 4), 1, m.hidden * w * 7),
    ...layerCosts(m, 1, m.layers),
    gemv('gemv q4_0: q, k, v', q + 2 * kv, m.hidden, w, q8Bytes, 4, m.layers),
    cost(
      'attention_decode + merge',
      'fp32',
      4 * q * context,
      kvRead + 8 * q,
      m.layers,
      2 * splits * m.heads * (m.headDim + 2) * 4,
    ),
    gemv('gemv q4_0: output', m.hidden, q, w, q8Bytes, 8, m.layers),
    gemv('gemv f32: router', m.experts, m.hidden, f32, 4, 4, m.layers, 'fp32'),
    cost(
      'expert_gate_up q4_0',
      'dp4a',
      4 * hidden * m.hidden,
      2 * hidden * m.hidden * w + m.hidden * q8Bytes + hidden * q8Bytes,
      m.layers,
    ),
    cost(
      'expert_down q4_0',
      'dp4a',
      2 * hidden * m.hidden,
      hidden * m.hidden * w + hidden * q8Bytes + 8 * m.hidden,
      m.layers,
    ),
    gemv('gemv q6_k: lm_head', m.vocab, m.hidden, head, q8Bytes, 4, 1),
    cost('top_k', 'fp32', 10 * m.vocab, 4 * m.vocab + 8 * topKCandidates, 1),
  ];
}

/**
 * @param {ModelShape} m
 * @param {number} tokens of one new sequence
 * @returns {Cost[]} one step; every expert gets its even share of the pairs
 */
export function prefillCosts(m, tokens) {
  const q = m.heads * m.headDim;
  const kv = m.kvHeads * m.headDim;
  const { q4_0: w, f32 } = weightBytes;
  const pairs = tokens * m.topK;
  const passes = Math.ceil(tokens / gemmTileTokens);
  const expertPasses = Math.ceil(pairs / m.experts / expertTileTokens);
  const attentionTiles = Math.ceil((tokens * m.heads) / m.kvHeads / prefillTileRows);
  const kvOnce = 2 * kvBytes * kv * tokens;
  const experts = m.experts * m.expertSize * m.hidden * w;
  /** @type {(name: string, rows: number, cols: number, bytes: number, input: number, output: number, unit: Unit, times: number) => Cost} */
  const gemm = (name, rows, cols, bytes, input, output, unit, times) =>
    cost(
      name,
      unit,
      2 * times * rows * cols * tokens,
      rows * cols * bytes + tokens * (cols * input + rows * output),
      m.layers,
      (passes - 1) * rows * cols * bytes,
    );
  return [
    ...layerCosts(m, tokens, m.layers),
    gemm('gemm q4_0: q, k, v', q + 2 * kv, m.hidden, w, q8Bytes, 4, 'int8', 1),
    // Three products of bf16 parts; a query sees half of the keys on average.
    cost(
      'attention_prefill f16',
      'bf16',
      (3 * 4 * q * tokens * tokens) / 2,
      kvOnce + 8 * q * tokens,
      m.layers,
      kvOnce * Math.max((attentionTiles + 1) / 2 - 1, 0),
    ),
    gemm('gemm q4_0: output', m.hidden, q, w, q8Bytes, 8, 'int8', 1),
    gemm('gemm f32: router', m.experts, m.hidden, f32, 4, 4, 'bf16', 3),
    cost('dispatch', 'fp32', pairs, 8 * pairs + 4 * m.experts, m.layers),
    cost(
      'expert_gemm_gate_up q4_0',
      'int8',
      4 * pairs * m.hidden * m.expertSize,
      2 * experts + tokens * m.hidden * q8Bytes + 4 * pairs * m.expertSize,
      m.layers,
      2 * experts * (expertPasses - 1),
    ),
    cost(
      'expert_gemm_down q4_0',
      'int8',
      2 * pairs * m.hidden * m.expertSize,
      experts + pairs * (m.expertSize * q8Bytes + 4 * m.hidden),
      m.layers,
      experts * (expertPasses - 1),
    ),
    cost('combine', 'fp32', 2 * pairs * m.hidden, 4 * pairs * m.hidden + 8 * tokens * m.hidden, m.layers),
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
