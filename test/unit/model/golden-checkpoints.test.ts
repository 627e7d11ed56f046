/**
 * The golden checkpoints (test/golden/fixtures, written by transformers): each opens, config.json of transformers 5 and
 * config.v4.json give the same ModelSpec, and our tokenizer encodes its prompts like the reference did.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigReader } from '../../../src/model/config.js';
import { familyOf } from '../../../src/model/families/registry.js';
import { openModel } from '../../../src/model/open-model.js';
import type { Json } from './tiny-checkpoint.js';

const ROOT = 'test/golden/fixtures';
const names = readdirSync(ROOT, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name);

const readerOf = (path: string) => new ConfigReader(JSON.parse(readFileSync(path, 'utf8')) as Json, path);

function specOf(path: string) {
  const reader = readerOf(path);
  return familyOf(reader).readSpec(reader);
}

type Golden = { vocabSize: number; prompts: { text: string; inputIds: number[] }[] };

describe.each(names)('%s', (name) => {
  const folder = join(ROOT, name);
  const model = openModel(folder);
  const golden = JSON.parse(readFileSync(join(folder, 'golden.json'), 'utf8')) as Golden;

  it('opens with every weight placed once', () => {
    const used = new Map<string, number>();
    for (const { tensor, rows, cols } of model.weights)
      used.set(tensor, (used.get(tensor) ?? 0) + rows * cols);
    const { unusedPrefixes = [] } = familyOf(readerOf(join(folder, 'config.json')));
    for (const { name: tensor, shape } of model.tensors) {
      if (unusedPrefixes.some((prefix) => tensor.startsWith(prefix))) continue;
      expect(used.get(tensor), tensor).toBe(shape.reduce((a, b) => a * b, 1));
    }
    expect(model.spec.vocabSize).toBe(golden.vocabSize);
  });

  it('has one spec in the spellings of transformers 4 and 5', () => {
    expect(specOf(join(folder, 'config.v4.json'))).toEqual(model.spec);
  });

  it('tokenizes its prompts like the reference', () => {
    for (const { text, inputIds } of golden.prompts) expect(model.tokenizer.encode(text)).toEqual(inputIds);
  });
});

it('there are fixtures of all six families', () => {
  expect(names).toEqual(
    expect.arrayContaining(['qwen3_moe', 'qwen2_moe', 'mixtral', 'olmoe', 'phimoe', 'granitemoe']),
  );
});
