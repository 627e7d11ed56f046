/** Formats to which float weights can be quantised, at load and by `convert`; `q4_k_m` mixes q4_k and q6_k. */
export const QUANTIZE_FORMATS = [
  'q8_0',
  'q4_0',
  'q4_1',
  'q5_0',
  'q5_1',
  'q4_k',
  'q4_k_m',
  'q5_k',
  'q6_k',
  'iq4_nl',
  'mxfp4',
] as const;
export type QuantizeFormat = (typeof QUANTIZE_FORMATS)[number];
