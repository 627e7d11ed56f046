/**
 * Where each tensor of a checkpoint lies: built by the safetensors and GGUF readers, asked by weights.ts and by the
 * engine when it fills the load table. Holds names, shapes and offsets only, never values.
 */
import { ModelFormatError } from '../errors.js';
import type { DTypeName } from './dtypes.js';

export type TensorInfo = {
  name: string;
  dtype: DTypeName;
  /** Row-major: the last dimension is contiguous. GGUF's reversed dimensions are turned round by its reader. */
  shape: readonly number[];
  /** Index into TensorIndex.files. */
  file: number;
  /** From the start of the file. */
  offsetBytes: number;
  /** Of all that is stored for the tensor. */
  sizeBytes: number;
  scales?: TensorScales;
};

/**
 * How values are stored where they are not in the format's own layout but as codes and scales in two tensors; order =
 * number at the JS/native wall, 0 being plain. 'mxfp4_split': codes two to a byte, and an exponent for each 32.
 * 'fp8_blocks': float8 e4m3 and a float factor for each 128 x 128 block; they become the dtype that is told here.
 */
export const ENCODINGS = ['mxfp4_split', 'fp8_blocks'] as const;

/** The second tensor of such a pair. */
export type TensorScales = {
  encoding: (typeof ENCODINGS)[number];
  file: number;
  offsetBytes: number;
};

/** All tensors of one checkpoint, by name. */
export class TensorIndex {
  readonly files: readonly string[];
  /** Bytes of all tensors together. */
  readonly sizeBytes: number;
  readonly #byName = new Map<string, TensorInfo>();

  /** Throws ModelFormatError where two tensors have one name. */
  constructor(files: readonly string[], tensors: Iterable<TensorInfo>) {
    this.files = files;
    let sizeBytes = 0;
    for (const tensor of tensors) {
      const other = this.#byName.get(tensor.name);
      if (other !== undefined) {
        throw new ModelFormatError({
          file: files[tensor.file] ?? '',
          field: tensor.name,
          expected: 'each tensor name once in the checkpoint',
          got: `it also in ${files[other.file] ?? ''}`,
        });
      }
      this.#byName.set(tensor.name, tensor);
      sizeBytes += tensor.sizeBytes;
    }
    this.sizeBytes = sizeBytes;
  }

  get count(): number {
    return this.#byName.size;
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  get(name: string): TensorInfo | undefined {
    return this.#byName.get(name);
  }

  names(): IterableIterator<string> {
    return this.#byName.keys();
  }

  [Symbol.iterator](): IterableIterator<TensorInfo> {
    return this.#byName.values();
  }

  /** Path of the file that holds the tensor. */
  pathOf(tensor: TensorInfo): string {
    return this.files[tensor.file] ?? '';
  }

  /** Throws ModelFormatError where the tensor has another shape. */
  expectShape(tensor: TensorInfo, expected: readonly number[]): void {
    if (tensor.shape.length === expected.length && tensor.shape.every((dim, i) => dim === expected[i]))
      return;
    throw new ModelFormatError({
      file: this.pathOf(tensor),
      field: tensor.name,
      expected: `shape ${JSON.stringify(expected)}, as the config says`,
      got: `shape ${JSON.stringify(tensor.shape)}`,
      offset: tensor.offsetBytes,
    });
  }
}
