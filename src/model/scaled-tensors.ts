/**
 * Checkpoints of the Hub that store a matrix as two tensors, codes and scales, as one tensor each: gpt-oss's MXFP4
 * (`NAME_blocks`, `NAME_scales`) and DeepSeek's float8 (`NAME`, `NAME_scale_inv`). Called by safetensors-folder.ts.
 */
import { ModelFormatError } from '../errors.js';
import type { DTypeName } from './dtypes.js';
import type { TensorInfo } from './tensor-index.js';

/** Types that only such pairs have. */
export type CodeType = 'u8' | 'f8_e4m3';

export type RawTensor = Omit<TensorInfo, 'dtype' | 'scales'> & { dtype: DTypeName | CodeType };

/** Values that share a scale. */
const MXFP4_BLOCK = 32;
const FP8_BLOCK = 128;

/** Throws ModelFormatError for codes without scales and pairs that do not fit together. */
export function mergeScaledTensors(raw: readonly RawTensor[], files: readonly string[]): TensorInfo[] {
  const byName = new Map(raw.map((tensor) => [tensor.name, tensor]));
  const taken = new Set<RawTensor>();
  const merged: TensorInfo[] = [];
  for (const tensor of raw) {
    const pair = pairOf(tensor, byName, files);
    if (pair === undefined) continue;
    merged.push(pair.merged);
    taken.add(tensor).add(pair.scales);
  }
  for (const tensor of raw) {
    if (taken.has(tensor)) continue;
    const { dtype } = tensor;
    if (dtype === 'u8' || dtype === 'f8_e4m3') throw withoutScales(tensor, files);
    merged.push({ ...tensor, dtype });
  }
  return merged;
}

function pairOf(tensor: RawTensor, byName: ReadonlyMap<string, RawTensor>, files: readonly string[]) {
  if (tensor.dtype === 'u8' && tensor.name.endsWith('_blocks')) {
    const name = tensor.name.slice(0, -'_blocks'.length);
    const scales = byName.get(`${name}_scales`);
    return scales && { scales, merged: mergeMxfp4(name, tensor, scales, files) };
  }
  if (tensor.dtype === 'f8_e4m3') {
    const scales = byName.get(`${tensor.name}_scale_inv`);
    return scales && { scales, merged: mergeFp8(tensor, scales, files) };
  }
  return undefined;
}

/** Blocks [..., cols / 32, 16] and scales [..., cols / 32]. */
function mergeMxfp4(
  name: string,
  blocks: RawTensor,
  scales: RawTensor,
  files: readonly string[],
): TensorInfo {
  const leading = blocks.shape.slice(0, -2);
  const [count = 0, width = 0] = blocks.shape.slice(-2);
  if (width !== MXFP4_BLOCK / 2 || blocks.shape.length < 3) {
    throw mismatch(blocks, files, 'blocks of 16 bytes in the last dimension');
  }
  const expected = [...leading, count];
  if (scales.dtype !== 'u8' || JSON.stringify(scales.shape) !== JSON.stringify(expected)) {
    throw mismatch(
      scales,
      files,
      `U8 ${JSON.stringify(expected)}, one scale for each block of ${blocks.name}`,
    );
  }
  const shape = [...leading, count * MXFP4_BLOCK];
  return withScales({ ...blocks, name, dtype: 'mxfp4', shape }, scales, 'mxfp4_split');
}

/** Codes [rows, cols] and factors [rows / 128, cols / 128], rounded up. */
function mergeFp8(codes: RawTensor, scales: RawTensor, files: readonly string[]): TensorInfo {
  const expected = codes.shape.map((dim) => Math.ceil(dim / FP8_BLOCK));
  if (codes.shape.length !== 2) throw mismatch(codes, files, 'a matrix');
  if (scales.dtype !== 'f32' || JSON.stringify(scales.shape) !== JSON.stringify(expected)) {
    const blocks = `${FP8_BLOCK} x ${FP8_BLOCK} block of ${codes.name}`;
    throw mismatch(scales, files, `F32 ${JSON.stringify(expected)}, one factor for each ${blocks}`);
  }
  return withScales({ ...codes, dtype: 'bf16' }, scales, 'fp8_blocks');
}

function withScales(
  tensor: RawTensor & { dtype: DTypeName },
  scales: RawTensor,
  encoding: 'mxfp4_split' | 'fp8_blocks',
): TensorInfo {
  const { file, offsetBytes } = scales;
  return {
    ...tensor,
    sizeBytes: tensor.sizeBytes + scales.sizeBytes,
    scales: { encoding, file, offsetBytes },
  };
}

function mismatch(tensor: RawTensor, files: readonly string[], expected: string): ModelFormatError {
  return new ModelFormatError({
    file: files[tensor.file] ?? '',
    field: tensor.name,
    expected,
    got: `${tensor.dtype.toUpperCase()} ${JSON.stringify(tensor.shape)}`,
    offset: tensor.offsetBytes,
  });
}

function withoutScales(tensor: RawTensor, files: readonly string[]): ModelFormatError {
  const pairs = tensor.dtype === 'u8' ? 'NAME_blocks with NAME_scales' : 'NAME with NAME_scale_inv';
  return new ModelFormatError({
    code: 'ERR_MODEL_UNSUPPORTED',
    file: files[tensor.file] ?? '',
    field: tensor.name,
    expected: `${tensor.dtype.toUpperCase()} only as codes with scales (${pairs})`,
    got: 'a tensor of its own',
    hint: 'Save the checkpoint in bfloat16, float16 or float32, or use a GGUF file of it.',
  });
}
