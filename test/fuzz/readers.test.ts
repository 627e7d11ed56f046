/**
 * Damaged files of every kind: whatever is in them, reading ends with an answer or a NearmoeError that names the file,
 * never with another exception, a hang or a huge allocation. NEARMOE_FUZZ_RUNS sets the number of cases of each test.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { NearmoeError } from '../../src/errors.js';
import { readGgufHeader } from '../../src/model/gguf/reader.js';
import { openModel } from '../../src/model/open-model.js';
import { readSafetensors } from '../../src/model/safetensors.js';
import {
  type Json,
  modelFolder,
  neededTensors,
  newFile,
  safetensorsBytes,
  TINY_CONFIGS,
  tinyTokenizer,
} from '../unit/model/tiny-checkpoint.js';
import { damaged, damagedJson } from './mutations.js';

const RUNS = Number(process.env.NEARMOE_FUZZ_RUNS ?? 400);
const MAX_CPU_US = 1e6;

/** Runs it; passes where it returns or throws a NearmoeError, in time. */
function survives(run: () => unknown): void {
  const start = process.cpuUsage();
  try {
    run();
  } catch (error) {
    if (!(error instanceof NearmoeError)) throw error;
    expect(error.message.length).toBeLessThan(2000);
  }
  const { user, system } = process.cpuUsage(start);
  expect(user + system).toBeLessThan(MAX_CPU_US);
}

const settings = { numRuns: RUNS, seed: Number(process.env.NEARMOE_FUZZ_SEED ?? 20260131) };
const TIMEOUT_MS = 30_000 + RUNS * 50;

describe('damaged files', () => {
  it.each(['granitemoe', 'mixtral', 'qwen3_moe', 'types'])(
    '%s.gguf',
    (name) => {
      const original = readFileSync(`test/fixtures/gguf/${name}.gguf`);
      const path = newFile('model.gguf', original);
      const headerBytes = Math.min(...readGgufHeader(path).tensors.map((tensor) => tensor.offsetBytes));
      fc.assert(
        fc.property(damaged(original, headerBytes), (bytes) => {
          writeFileSync(path, bytes);
          survives(() => openModel(path));
        }),
        settings,
      );
    },
    TIMEOUT_MS,
  );

  it(
    'GGUF with a damaged head only',
    () => {
      const original = readFileSync('test/fixtures/gguf/split-00001-of-00003.gguf');
      const path = newFile('model.gguf', original);
      fc.assert(
        fc.property(damaged(original, original.length), (bytes) => {
          writeFileSync(path, bytes);
          survives(() => readGgufHeader(path));
        }),
        { ...settings, numRuns: RUNS * 5 },
      );
    },
    TIMEOUT_MS,
  );

  it(
    'safetensors',
    () => {
      const original = safetensorsBytes([
        { name: 'a.weight', shape: [4, 3] },
        { name: 'b', shape: [7], dtype: 'BF16' },
        { name: 'c', shape: [2, 2, 2], dtype: 'F16' },
      ]);
      const path = newFile('model.safetensors', original);
      fc.assert(
        fc.property(damaged(original, original.length), (bytes) => {
          writeFileSync(path, bytes);
          survives(() => readSafetensors(path));
        }),
        { ...settings, numRuns: RUNS * 5 },
      );
    },
    TIMEOUT_MS,
  );
});

describe('damaged JSON', () => {
  const folders = Object.entries(TINY_CONFIGS).map(([name, config]) => {
    const folder = modelFolder({ config, tensors: neededTensors(config) });
    return { name, config, folder };
  });

  it.each(folders)('config.json of $name', ({ config, folder }) => {
    fc.assert(
      fc.property(damagedJson(config), (json) => {
        writeFileSync(join(folder, 'config.json'), JSON.stringify(json));
        survives(() => openModel(folder));
      }),
      settings,
    );
  });

  it.each<[string, Json]>([
    ['tokenizer.json', tinyTokenizer()],
    [
      'tokenizer_config.json',
      { eos_token: '<|end|>', chat_template: [{ name: 'default', template: '{{ messages }}' }] },
    ],
    [
      'generation_config.json',
      { eos_token_id: [1, 2], do_sample: true, temperature: 0.5, top_k: 5, top_p: 0.9 },
    ],
  ])('%s', (file, original) => {
    const config = TINY_CONFIGS.olmoe as Json;
    const folder = modelFolder({ config, tensors: neededTensors(config) });
    fc.assert(
      fc.property(damagedJson(original), (json) => {
        writeFileSync(join(folder, file), JSON.stringify(json));
        survives(() => {
          const model = openModel(folder);
          model.tokenizer.decode(model.tokenizer.encode('hello <|user|> there'));
        });
      }),
      settings,
    );
  });
});
