/**
 * Checkpoints whose weights are not plain rows (latent attention, codes with scales, rows of two matrices in turn),
 * converted as they are: the file computes the bits that the checkpoint does, and where its values lie in another order,
 * the same but for rounding.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { convertToGguf } from '../../src/model/gguf/convert.js';
import { openModel } from '../../src/model/open-model.js';
import { Fixture, fixturePath } from './fixture.js';

const folder = mkdtempSync(path.join(tmpdir(), 'nearmoe-converted-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const NAMES = [
  'deepseek_v2',
  'deepseek_v2-lite',
  'deepseek_v3',
  'deepseek_v3-fp8',
  'glm4_moe_lite',
  'gpt_oss',
  'llama4',
  'gemma4',
  'gemma4-conditional',
  'qwen3_next',
  'qwen3_5_moe_text',
  'lfm2_moe',
];

/** Values of their files lie in another order, so that sums over them are rounded otherwise. */
const RESUMMED = ['qwen3_5_moe_text'];

function shareOfLargest(
  expected: Float32Array = new Float32Array(0),
  got: Float32Array = new Float32Array(0),
) {
  const errors = expected.map((value, at) => Math.abs(value - (got[at] ?? Number.NaN)));
  return Math.max(...errors) / Math.max(...expected.map(Math.abs));
}

/** The checkpoint with its config's numbers as float32: metadata keeps no more. */
function rounded(name: string): string {
  const copy = path.join(folder, name);
  cpSync(fixturePath(name), copy, { recursive: true });
  const file = path.join(copy, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8'), (_key, value) =>
    typeof value === 'number' ? Math.fround(value) : value,
  );
  writeFileSync(file, JSON.stringify(config));
  return copy;
}

describe.each(NAMES)('%s', (name) => {
  it('gives the same logits from the GGUF file', () => {
    const checkpoint = rounded(name);
    const file = `${checkpoint}.gguf`;
    convertToGguf(openModel(checkpoint), file, { dtype: 'keep' });
    const [hub, gguf] = [checkpoint, file].map((model) => new Fixture(name, {}, true, model));
    const [expected, got] = [hub?.run({}) ?? [], gguf?.run({}) ?? []];
    expect(got.map(({ tokenIds }) => tokenIds)).toEqual(expected.map(({ tokenIds }) => tokenIds));
    for (const [i, { logits }] of expected.entries()) {
      expect(logits?.values.length).toBeGreaterThan(0);
      if (!RESUMMED.includes(name)) expect(got[i]?.logits?.values).toEqual(logits?.values);
      else expect(shareOfLargest(logits?.values, got[i]?.logits?.values)).toBeLessThan(1e-4);
    }
    hub?.dispose();
    gguf?.dispose();
  });
});
