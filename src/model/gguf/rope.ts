/**
 * Rotary settings of a GGUF file as the `rope_parameters` of config.json: scaling keys of the metadata, and factors
 * that converters store as tensors. Called by config.ts. The only place of this folder that reads tensor values.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { ModelFormatError } from '../../errors.js';
import type { JsonObject } from '../json-file.js';
import type { TensorIndex } from '../tensor-index.js';
import type { GgufMetadata } from './metadata.js';
import { ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, ROPE_FREQS } from './names.js';

/** Throws ModelFormatError. */
export function readRopeParameters(metadata: GgufMetadata, tensors: TensorIndex, arch: string): JsonObject {
  const key = (suffix: string) => `${arch}.rope.${suffix}`;
  const theta = metadata.number(key('freq_base')) ?? 10000;
  const original = metadata.integer(key('scaling.original_context_length'), 1);
  const attentionFactor = metadata.number(key('scaling.attn_factor'));
  const shared = {
    rope_theta: theta,
    ...(original === undefined ? {} : { original_max_position_embeddings: original }),
  };
  if (tensors.has(ROPE_FACTORS_LONG) || tensors.has(ROPE_FACTORS_SHORT)) {
    const factor = attentionFactor ?? 1;
    return {
      ...shared,
      rope_type: 'longrope',
      short_factor: readRopeFactors(tensors, ROPE_FACTORS_SHORT),
      long_factor: readRopeFactors(tensors, ROPE_FACTORS_LONG),
      attention_factor: factor,
      // Keys of our own converter; others leave Phi's mscales out and record what LongRoPE computes from the lengths.
      short_mscale: metadata.number(key('scaling.short_mscale')) ?? factor,
      long_mscale: metadata.number(key('scaling.long_mscale')) ?? factor,
    };
  }
  if (tensors.has(ROPE_FREQS)) {
    // Llama 3's scaling as plain factors of the frequencies: longrope whose two lists are one.
    const factors = readRopeFactors(tensors, ROPE_FREQS);
    return {
      ...shared,
      rope_type: 'longrope',
      short_factor: factors,
      long_factor: factors,
      attention_factor: 1,
    };
  }
  return { ...shared, ...readScaling(metadata, key, attentionFactor) };
}

function readScaling(
  metadata: GgufMetadata,
  key: (suffix: string) => string,
  attentionFactor: number | undefined,
): JsonObject {
  // Files from before 2024 have only a linear scale.
  const factor = metadata.number(key('scaling.factor')) ?? metadata.number(key('scale_linear')) ?? 0;
  const type = metadata.text(key('scaling.type')) ?? 'linear';
  if (type === 'none' || (type === 'linear' && (factor === 0 || factor === 1)))
    return { rope_type: 'default' };
  if (type === 'linear') return { rope_type: 'linear', factor };
  if (type !== 'yarn')
    throw metadata.error(key('scaling.type'), 'none, linear, yarn or longrope with its factors', type);
  return {
    rope_type: 'yarn',
    factor,
    beta_fast: metadata.number(key('scaling.yarn_beta_fast')) ?? null,
    beta_slow: metadata.number(key('scaling.yarn_beta_slow')) ?? null,
    ...deepseekScales(metadata.number(key('scaling.yarn_log_multiplier'))),
    // The metadata's factor comes on top of YaRN's own.
    attention_factor:
      attentionFactor === undefined || factor <= 1 ? null : attentionFactor * (0.1 * Math.log(factor) + 1),
  };
}

/** DeepSeek's mscales: files hold a tenth of `mscale_all_dim`, and published models have both the same. */
function deepseekScales(logMultiplier: number | undefined): JsonObject {
  if (logMultiplier === undefined || logMultiplier === 0) return {};
  const mscale = 10 * logMultiplier;
  return { mscale, mscale_all_dim: mscale };
}

/** Most values of a factor list: half a head. */
const MAX_FACTORS = 4096;

/** A vector of factors on the frequencies. Throws ModelFormatError. */
export function readRopeFactors(tensors: TensorIndex, name: string): number[] {
  const tensor = tensors.get(name);
  const file = tensor === undefined ? (tensors.files[0] ?? '') : tensors.pathOf(tensor);
  if (tensor === undefined) {
    throw new ModelFormatError({
      code: 'ERR_WEIGHT_MISSING',
      file,
      field: name,
      expected: 'a tensor of this name',
      got: 'none',
    });
  }
  if (tensor.dtype !== 'f32' || tensor.shape.length !== 1 || tensor.sizeBytes > MAX_FACTORS * 4) {
    throw new ModelFormatError({
      file,
      field: name,
      expected: `a vector of at most ${MAX_FACTORS} f32 values`,
      got: `${tensor.dtype} ${JSON.stringify(tensor.shape)}`,
      offset: tensor.offsetBytes,
    });
  }
  const bytes = Buffer.alloc(tensor.sizeBytes);
  const handle = openSync(file, 'r');
  try {
    readSync(handle, bytes, 0, bytes.length, tensor.offsetBytes);
  } finally {
    closeSync(handle);
  }
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(i * 4));
}
