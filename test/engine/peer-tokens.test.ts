/**
 * Greedy tokens from Q8_0 files of trained models: those that node-llama-cpp gave from the same files, which are also
 * transformers' from the unquantised weights (scripts/goldens/peer-parity.mjs; test/fixtures/gguf/README.md).
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { nearmoe } from './built.js';

const FOLDER = 'test/fixtures/gguf/peer';

describe.each(['qwen3_moe', 'qwen2_moe', 'granitemoe'])('%s', (name) => {
  const { prompts } = JSON.parse(readFileSync(`${FOLDER}/${name}.json`, 'utf8')) as {
    prompts: { inputIds: number[]; greedyIds: number[] }[];
  };

  it.each([{ units: 1 }, { units: 2 }, { units: 2, gpu: 'host', vram: '1MB' } as const])(
    '%o',
    async (options) => {
      const model = await nearmoe.loadModel({
        model: `${FOLDER}/${name}-q8_0.gguf`,
        pinThreads: false,
        ...options,
      });
      const request = { temperature: 0, maxTokens: 24, ignoreEos: true } as const;
      const results = await Promise.all(
        prompts.map(({ inputIds }) => model.generate({ inputIds }, request).result),
      );
      await model.dispose();
      expect(prompts.length).toBe(3);
      expect(results.map(({ tokenIds }) => tokenIds)).toEqual(prompts.map(({ greedyIds }) => greedyIds));
    },
  );
});
