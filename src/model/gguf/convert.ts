/**
 * Writes an opened Hub checkpoint as one GGUF file: weights under llama.cpp's names, experts stacked, q and k reordered
 * where the family's files have them so, tokenizer and settings as metadata. Called by the `convert` command. Values go
 * through in pieces; formats other than f32, f16 and bf16 need a codec that knows them.
 */
import { join } from 'node:path';
import { ModelFormatError } from '../../errors.js';
import type { DTypeName } from '../dtypes.js';
import { FAMILIES } from '../families/registry.js';
import { floatCodec, type ValueCodec } from '../float-codec.js';
import { readJsonObject } from '../json-file.js';
import type { OpenedModel } from '../opened-model.js';
import { ValueReader, weightTensors } from './convert-weights.js';
import { specMetadata } from './spec-metadata.js';
import { vocabularyMetadata } from './vocabulary-metadata.js';
import { type MetadataValue, type OutputTensor, tensorBytes, writeGguf } from './writer.js';

export type ConvertOptions = {
  /** Format of the matrices; 'keep' leaves each as it is. Vectors and routers become f32, as llama.cpp wants them. */
  dtype: DTypeName | 'keep';
  codec?: ValueCodec;
  onProgress?: (doneBytes: number, totalBytes: number) => void;
};

export type ConvertReport = {
  /** Bytes of values by format. */
  bytesByDtype: Partial<Record<DTypeName, number>>;
  /** Matrices whose rows are no whole blocks of the wanted format and that got another one. */
  otherFormat: { name: string; dtype: DTypeName }[];
};

/** Throws ModelFormatError and TokenizerError for what GGUF cannot say. Leaves no file behind on failure. */
export function convertToGguf(model: OpenedModel, outPath: string, options: ConvertOptions): ConvertReport {
  const gguf = FAMILIES.find(({ modelType }) => modelType === model.spec.architecture)?.gguf;
  if (gguf === undefined || model.source !== 'hub') {
    throw new ModelFormatError({
      code: 'ERR_MODEL_UNSUPPORTED',
      file: model.path,
      expected: 'a checkpoint folder of a family that has a GGUF form',
      got: model.source === 'hub' ? model.spec.architecture : 'a GGUF file',
    });
  }
  const { metadata, ropeTensors } = specMetadata(model.spec, gguf.architecture, model.path);
  for (const [key, value] of tokenizerMetadata(model)) metadata.set(key, value);
  const values = new ValueReader(model.tensors, options.codec ?? floatCodec);
  try {
    const tensors = [
      ...ropeTensors.map(({ name, values: factors }) => vectorTensor(name, factors)),
      ...weightTensors(model, values, gguf.ropeStyle !== model.spec.ropes[0]?.style, options.dtype),
    ];
    writeGguf(outPath, metadata, withProgress(tensors, options.onProgress));
    return reportOf(tensors, options.dtype);
  } finally {
    values.close();
  }
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
    pieces: () => [floatCodec.encode('f32', Float32Array.from(values), 1, values.length)],
  };
}

function reportOf(tensors: readonly OutputTensor[], wanted: DTypeName | 'keep'): ConvertReport {
  const bytesByDtype: ConvertReport['bytesByDtype'] = {};
  const otherFormat: ConvertReport['otherFormat'] = [];
  for (const tensor of tensors) {
    const { name, dtype } = tensor;
    bytesByDtype[dtype] = (bytesByDtype[dtype] ?? 0) + tensorBytes(tensor);
    if (wanted !== 'keep' && dtype !== wanted && dtype !== 'f32') otherFormat.push({ name, dtype });
  }
  return { bytesByDtype, otherFormat };
}

/** The same tensors, with every written piece reported. */
function withProgress(
  tensors: readonly OutputTensor[],
  report: ConvertOptions['onProgress'],
): readonly OutputTensor[] {
  if (report === undefined) return tensors;
  const totalBytes = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
  let doneBytes = 0;
  return tensors.map((tensor) => ({
    ...tensor,
    *pieces() {
      for (const piece of tensor.pieces()) {
        yield piece;
        doneBytes += piece.length;
        report(doneBytes, totalBytes);
      }
    },
  }));
}
