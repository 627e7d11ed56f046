/** Models that cannot be computed with end in a typed error that says why, before or while weights are loaded. */
import { cpSync, mkdtempSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { golden, goldenFolder, nearmoe } from './built.js';

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function copyOf(name: string): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-bad-'));
  folders.push(folder);
  cpSync(goldenFolder(name), folder, { recursive: true });
  return folder;
}

/** Overwrites the first value of a float32 tensor. */
function poison(folder: string, tensor: string, value: number): void {
  const file = path.join(folder, 'model.safetensors');
  const bytes = readFileSync(file);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString()) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  bytes.writeFloatLE(value, 8 + headerBytes + (header[tensor]?.data_offsets[0] ?? Number.NaN));
  writeFileSync(file, bytes);
}

const load = (model: string, options = {}) =>
  nearmoe.loadModel({ model, units: 2, pinThreads: false, ...options });

describe('a model that cannot be computed with', () => {
  it.each([
    ['model.layers.0.mlp.experts.3.down_proj.weight', Number.NaN],
    ['model.layers.2.self_attn.q_proj.weight', Number.POSITIVE_INFINITY],
    ['model.norm.weight', Number.NaN],
  ])('names the weight that is not finite: %s', async (tensor, value) => {
    const folder = copyOf('qwen3_moe');
    poison(folder, tensor, value);
    await expect(load(folder)).rejects.toMatchObject({
      code: 'ERR_WEIGHT_VALUE',
      field: tensor,
      file: path.join(folder, 'model.safetensors'),
      expected: 'finite values',
    });
    await expectAlive();
  });

  it('says before loading that memory does not suffice, with the figures', async () => {
    const loading = load(goldenFolder('qwen3_moe'), { kvTokens: 1e12 });
    await expect(loading).rejects.toBeInstanceOf(nearmoe.MemoryError);
    await expect(loading).rejects.toMatchObject({
      message: /needs [\d.]+ GiB of memory .* only [\d.]+ GiB are available/,
      hint: expect.stringContaining('kvTokens'),
    });
  });

  it('misses a tokenizer', async () => {
    const folder = copyOf('qwen3_moe');
    unlinkSync(path.join(folder, 'tokenizer.json'));
    await expect(load(folder)).rejects.toBeInstanceOf(nearmoe.TokenizerError);
  });

  it('is cut short', async () => {
    const folder = copyOf('qwen3_moe');
    const file = path.join(folder, 'model.safetensors');
    writeFileSync(file, readFileSync(file).subarray(0, 200_000));
    await expect(load(folder)).rejects.toMatchObject({ name: 'ModelFormatError', file });
  });
});

/** The process goes on as if nothing had been: a good model loads and answers. */
async function expectAlive(): Promise<void> {
  const model = await load(goldenFolder('qwen3_moe'));
  const { tokenIds } = await model.generate('Hello', golden).result;
  expect(tokenIds.length).toBe(24);
  await model.dispose();
}
