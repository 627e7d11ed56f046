/**
 * Writes an opened Hub checkpoint as one GGUF file: weights under llama.cpp's names, experts stacked, q and k reordered
 * where the family's files have them so, tokenizer and settings as metadata. Called by the `convert` command. Values go
 * through native code in pieces; no tensor is in memory as a whole.
 */
import { statfsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { ModelFormatError, OutputError } from '../../errors.js';
import type { DTypeName } from '../dtypes.js';
import { FAMILIES } from '../families/registry.js';
import { readJsonObject } from '../json-file.js';
import type { OpenedModel } from '../opened-model.js';
import { type ConvertFormat, weightTensors } from './convert-weights.js';
import { specMetadata } from './spec-metadata.js';
import { ValueReader } from './value-reader.js';
import { vocabularyMetadata } from './vocabulary-metadata.js';
import { type MetadataValue, type OutputTensor, tensorBytes, writeGguf } from './writer.js';

export type ConvertOptions = {
  /** Vectors and routers become f32 whatever is asked for, as llama.cpp wants them. */
  dtype: ConvertFormat;
};

export type ConvertProgress = { doneBytes: number; totalBytes: number };

export type ConvertReport = {
  /** Bytes of values by format. */
  bytesByDtype: Partial<Record<DTypeName, number>>;
  /** Matrices that got another format than was asked for: finer by rule, or since their rows are no whole blocks. */
  otherFormat: { name: string; dtype: DTypeName }[];
};

/** `general.file_type`, which readers show and do not need. */
const FILE_TYPES: Partial<Record<ConvertFormat, number>> = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q4_1: 3,
  q8_0: 7,
  q5_0: 8,
  q5_1: 9,
  q4_k: 14,
  q4_k_m: 15,
  q5_k: 16,
  q6_k: 18,
  iq4_nl: 25,
  bf16: 32,
  mxfp4: 38,
};
const QUANTIZATION_VERSION = 2;

/**
 * Converts in steps, so that the caller can show progress and stop: leaving the generator leaves no file behind. Throws
 * ModelFormatError and TokenizerError for what GGUF cannot say, OutputError for what the disk refuses.
 */
export function* convertSteps(
  model: OpenedModel,
  outPath: string,
  { dtype }: ConvertOptions,
): Generator<ConvertProgress, ConvertReport> {
  const gguf = FAMILIES.find(({ modelType }) => modelType === model.spec.architecture)?.gguf;
  if (gguf === undefined || model.source !== 'hub') {
    throw new ModelFormatError({
      code: 'ERR_MODEL_UNSUPPORTED',
      file: model.path,
      expected: 'a checkpoint folder of a family that has a GGUF form',
      got: model.source === 'hub' ? model.spec.architecture : 'a GGUF file',
    });
  }
  const { metadata, ropeTensors } = specMetadata(model.spec, gguf, model.path);
  for (const [key, value] of tokenizerMetadata(model)) metadata.set(key, value);
  const values = new ValueReader(model.tensors, availableParallelism());
  try {
    const tensors = [
      ...ropeTensors.map(({ name, values: factors }) => vectorTensor(name, factors)),
      ...weightTensors(model, values, gguf, dtype),
    ];
    const fileType = FILE_TYPES[dtype];
    if (fileType !== undefined) metadata.set('general.file_type', { type: 'u32', value: fileType });
    metadata.set('general.quantization_version', { type: 'u32', value: QUANTIZATION_VERSION });
    const totalBytes = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
    checkSpace(outPath, totalBytes);
    for (const doneBytes of writeGguf(outPath, metadata, tensors)) yield { doneBytes, totalBytes };
    return reportOf(tensors, dtype);
  } finally {
    values.close();
  }
}

/** All steps at once. */
export function convertToGguf(model: OpenedModel, outPath: string, options: ConvertOptions): ConvertReport {
  const steps = convertSteps(model, outPath, options);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/** A full disk is told before an hour of work, not after. */
function checkSpace(outPath: string, sizeBytes: number): void {
  let free: number;
  try {
    const { bavail, bsize } = statfsSync(dirname(outPath));
    free = bavail * bsize;
  } catch (cause) {
    throw new OutputError(outPath, (cause as Error).message, { cause });
  }
  if (sizeBytes <= free) return;
  throw new OutputError(outPath, `it takes ${sizeBytes} bytes, and its disk has ${free} left`, {
    hint: 'Free space on that disk or choose a smaller format.',
  });
}

function tokenizerMetadata({
  path,
  tokenizer,
  spec,
  generation,
  chatTemplate,
}: OpenedModel): Map<string, MetadataValue> {
  const file = join(path, 'tokenizer.json');
  const bosId = tokenizer.specialTokenId('bos_token');
  const metadata = vocabularyMetadata({
    tokenizerJson: readJsonObject(file) ?? {},
    vocabSize: spec.vocabSize,
    bosId,
    eosId: tokenizer.specialTokenId('eos_token') ?? generation.eosTokenIds[0],
    unknownId: tokenizer.specialTokenId('unk_token'),
    padId: tokenizer.specialTokenId('pad_token'),
    addsBos: bosId !== undefined && tokenizer.encode('a')[0] === bosId,
    path: file,
  });
  const { default: template } = chatTemplate.texts;
  if (template !== undefined) metadata.set('tokenizer.chat_template', { type: 'string', value: template });
  return metadata;
}

function vectorTensor(name: string, values: readonly number[]): OutputTensor {
  return {
    name,
    dtype: 'f32',
    shape: [values.length],
    pieces: () => [new Uint8Array(Float32Array.from(values).buffer)],
  };
}

function reportOf(tensors: readonly OutputTensor[], wanted: ConvertFormat): ConvertReport {
  const bytesByDtype: ConvertReport['bytesByDtype'] = {};
  const otherFormat: ConvertReport['otherFormat'] = [];
  for (const tensor of tensors) {
    const { name, dtype } = tensor;
    bytesByDtype[dtype] = (bytesByDtype[dtype] ?? 0) + tensorBytes(tensor);
    if (wanted !== 'keep' && dtype !== wanted && dtype !== 'f32') otherFormat.push({ name, dtype });
  }
  return { bytesByDtype, otherFormat };
}
