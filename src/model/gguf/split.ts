/**
 * A GGUF model of one file or of several (`name-00001-of-00003.gguf`): one metadata, one TensorIndex. Called by
 * open-gguf.ts with the path of the first file.
 */
import { basename, dirname, join } from 'node:path';
import { ModelFormatError } from '../../errors.js';
import { TensorIndex, type TensorInfo } from '../tensor-index.js';
import type { GgufMetadata } from './metadata.js';
import { type GgufHeader, readGgufHeader } from './reader.js';

const MAX_SPLITS = 1000;

export type GgufModel = { metadata: GgufMetadata; tensors: TensorIndex };

/** Throws ModelFormatError; a missing part of a split model is ERR_MODEL_NOT_FOUND. */
export function readGgufModel(path: string): GgufModel {
  const first = readGgufHeader(path);
  const splits = first.metadata.integer('split.count', 0, MAX_SPLITS) ?? 0;
  if (splits <= 1) return { metadata: first.metadata, tensors: new TensorIndex([path], first.tensors) };
  const files = splitPaths(path, first, splits);
  const tensors: TensorInfo[] = [...first.tensors];
  for (const [number, file] of files.entries()) {
    if (number === 0) continue;
    const header = readGgufHeader(file, number);
    checkSplit(header, number, splits);
    tensors.push(...header.tensors);
  }
  const expected = first.metadata.integer('split.tensors.count');
  if (expected !== undefined && expected !== tensors.length) {
    throw first.metadata.error(
      'split.tensors.count',
      `${expected} tensors in all parts`,
      `${tensors.length}`,
    );
  }
  return { metadata: first.metadata, tensors: new TensorIndex(files, tensors) };
}

function splitPaths(path: string, first: GgufHeader, splits: number): string[] {
  const name = basename(path);
  const prefix = /^(.*)-\d{5}-of-\d{5}\.gguf$/.exec(name)?.[1];
  const pathOf = (number: number) => {
    const digits = (value: number) => `${value}`.padStart(5, '0');
    return join(dirname(path), `${prefix}-${digits(number + 1)}-of-${digits(splits)}.gguf`);
  };
  if (prefix === undefined) {
    throw new ModelFormatError({
      file: path,
      expected: `the name NAME-00001-of-${`${splits}`.padStart(5, '0')}.gguf for the first of ${splits} parts`,
      got: name,
    });
  }
  const number = first.metadata.integer('split.no') ?? 0;
  if (number !== 0 || basename(pathOf(0)) !== name) {
    throw first.metadata.error(
      'split.no',
      'the first part of the model',
      `part ${number + 1}`,
      `Give ${pathOf(0)}`,
    );
  }
  return Array.from({ length: splits }, (_, index) => pathOf(index));
}

function checkSplit({ metadata }: GgufHeader, number: number, splits: number): void {
  for (const [key, expected] of [
    ['split.no', number],
    ['split.count', splits],
  ] as const) {
    const got = metadata.integer(key);
    if (got !== expected) throw metadata.error(key, `${expected}, as the file's name says`, got);
  }
}
