/**
 * The safetensors files of a model folder as one TensorIndex: model.safetensors, or shards listed in
 * model.safetensors.index.json. Called by open-model.ts. Checks that index and shards tell the same story.
 */
import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ModelFormatError } from '../errors.js';
import { describeKind, isJsonObject, readJsonObject } from './json-file.js';
import { readSafetensors } from './safetensors.js';
import { mergeScaledTensors, type RawTensor } from './scaled-tensors.js';
import { TensorIndex } from './tensor-index.js';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

/** Throws ModelFormatError (ERR_MODEL_NOT_FOUND where the folder has no safetensors). */
export function readSafetensorsFolder(folder: string): TensorIndex {
  const single = join(folder, SINGLE);
  if (existsSync(single))
    return new TensorIndex([single], mergeScaledTensors(readSafetensors(single), [single]));
  const indexPath = join(folder, INDEX);
  const index = readJsonObject(indexPath);
  if (index === undefined) throw noWeights(folder);
  const weightMap = readWeightMap(index.weight_map, indexPath);
  const shards = [...new Set(weightMap.values())].sort();
  const files = shards.map((shard) => join(folder, shard));
  const tensors = files.flatMap((path, number) => readSafetensors(path, number));
  const tensorIndex = new TensorIndex(files, mergeScaledTensors(tensors, files));
  checkWeightMap(weightMap, tensors, files, indexPath);
  return tensorIndex;
}

function noWeights(folder: string): ModelFormatError {
  const names = readdirSync(folder);
  const gguf = names.find((name) => name.endsWith('.gguf'));
  const pickled = names.find(
    (name) => name.endsWith('.bin') || name.endsWith('.pt') || name.endsWith('.pth'),
  );
  let hint = '';
  if (gguf !== undefined) hint = `The folder holds a GGUF file; give its path: ${join(folder, gguf)}`;
  else if (pickled !== undefined) {
    hint = `${pickled} is in PyTorch's pickle format; save the model as safetensors with transformers.`;
  }
  return new ModelFormatError({
    code: 'ERR_MODEL_NOT_FOUND',
    file: folder,
    expected: `${SINGLE} or ${INDEX}`,
    got: 'neither',
    hint,
  });
}

function readWeightMap(value: unknown, indexPath: string): Map<string, string> {
  if (!isJsonObject(value)) {
    throw new ModelFormatError({
      file: indexPath,
      field: 'weight_map',
      expected: 'an object from tensor names to file names',
      got: describeKind(value),
    });
  }
  const map = new Map<string, string>();
  for (const [name, shard] of Object.entries(value)) {
    // A plain file name only: an index must not lead out of its folder.
    if (
      typeof shard !== 'string' ||
      shard !== basename(shard) ||
      !shard.endsWith('.safetensors') ||
      shard.includes('\\')
    ) {
      throw new ModelFormatError({
        file: indexPath,
        field: `weight_map.${name}`,
        expected: 'the name of a .safetensors file in the same folder',
        got: shard,
      });
    }
    map.set(name, shard);
  }
  if (map.size === 0) {
    throw new ModelFormatError({
      file: indexPath,
      field: 'weight_map',
      expected: 'tensors',
      got: 'an empty map',
    });
  }
  return map;
}

function checkWeightMap(
  weightMap: Map<string, string>,
  tensors: readonly RawTensor[],
  files: readonly string[],
  indexPath: string,
): void {
  const places = new Map(tensors.map(({ name, file }) => [name, basename(files[file] ?? '')]));
  for (const [name, shard] of weightMap) {
    const place = places.get(name) ?? 'no shard';
    if (place !== shard) {
      throw new ModelFormatError({
        code: place === 'no shard' ? 'ERR_WEIGHT_MISSING' : 'ERR_MODEL_FORMAT',
        file: indexPath,
        field: `weight_map.${name}`,
        expected: `the tensor in ${shard}`,
        got: `it in ${place}`,
      });
    }
  }
  for (const tensor of tensors) {
    if (!weightMap.has(tensor.name)) {
      throw new ModelFormatError({
        code: 'ERR_WEIGHT_SURPLUS',
        file: files[tensor.file] ?? '',
        field: tensor.name,
        expected: `only tensors that ${INDEX} lists`,
        got: 'one that it does not list',
      });
    }
  }
}
