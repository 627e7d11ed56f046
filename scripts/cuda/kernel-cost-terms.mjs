/**
 * Terms of kernel-costs.mjs: types, bytes of what kernels read and write, and the costs that several launches have in
 * common.
 */

/**
 * @typedef {{ name: string, hidden: number, layers: number, heads: number, kvHeads: number, headDim: number,
 *   experts: number, topK: number, expertSize: number, vocab: number, latent?: LatentShape, sharedSize?: number,
 *   denseLayers?: number, denseSize?: number }} ModelShape with latents, kvHeads counts for nothing and headDim is a
 *   head's output
 * @typedef {{ rank: number, ropeDim: number, nopeDim: number }} LatentShape
 * @typedef {'fp32' | 'dp4a' | 'int8' | 'bf16' | 'f16'} Unit which arithmetic units do the work
 * @typedef {{ name: string, bandwidthGBs: number, peakTflops: Record<Unit, number> }} Device
 * @typedef {{ kernel: string, minimumBytes: number, movedBytes: number, ops: number, unit: Unit, perStep: number }} Cost
 * perStep: launches of this shape in a step
 */

/** Bytes of a weight in the packed layout; q4_0 everywhere but in the router (f32) and lm_head (q6_k). */
export const weightBytes = { q4_0: 18 / 32, q6_k: 210 / 256, f32: 4 };
/** An int8 activation with its part of the block's {scale, scale * sum}. */
export const q8Bytes = 1 + 8 / 32;
export const kvBytes = 2; // f16
export const gemmTileTokens = 64; // gemm.cu

/**
 * @param {string} kernel
 * @param {Unit} unit
 * @param {number} ops
 * @param {number} minimumBytes
 * @param {number} perStep
 * @param {number} [rereadBytes] beyond the minimum
 * @returns {Cost}
 */
export function cost(kernel, unit, ops, minimumBytes, perStep, rereadBytes = 0) {
  return { kernel, unit, ops, minimumBytes, movedBytes: minimumBytes + rereadBytes, perStep };
}

/**
 * @param {string} name
 * @param {number} rows
 * @param {number} cols
 * @param {number} input bytes of a column of the input
 * @param {number} output bytes of a row of the output
 * @param {number} perStep
 * @param {keyof typeof weightBytes} [format]
 * @returns {Cost} one token
 */
export function gemv(name, rows, cols, input, output, perStep, format = 'q4_0') {
  const bytes = rows * cols * weightBytes[format] + cols * input + rows * output;
  return cost(`gemv ${format}: ${name}`, format === 'f32' ? 'fp32' : 'dp4a', 2 * rows * cols, bytes, perStep);
}

/**
 * @param {string} name
 * @param {number} tokens
 * @param {number} rows
 * @param {number} cols
 * @param {number} output bytes of a row of the output
 * @param {number} perStep
 * @returns {Cost} q4_0
 */
export function gemm(name, tokens, rows, cols, output, perStep) {
  const weights = rows * cols * weightBytes.q4_0;
  const passes = Math.ceil(tokens / gemmTileTokens);
  return cost(
    `gemm q4_0: ${name}`,
    'int8',
    2 * rows * cols * tokens,
    weights + tokens * (cols * q8Bytes + rows * output),
    perStep,
    (passes - 1) * weights,
  );
}
