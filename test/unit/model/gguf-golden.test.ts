/**
 * The golden checkpoints as GGUF files by gguf-py (test/fixtures/gguf/golden), through the built command line: logits and
 * greedy tokens are those that transformers computed for the checkpoints.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { newFolder } from './tiny-checkpoint.js';

const TOLERANCE = 1e-3;

type Prompt = { name: string; inputIds: number[]; greedyIds: number[]; firstRow: number };
type Golden = { vocabSize: number; prompts: Prompt[] };

function floats(path: string): Float32Array {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

describe.each([
  ...['qwen3_moe', 'qwen2_moe', 'mixtral', 'olmoe', 'phimoe', 'granitemoe', 'glm4_moe', 'ernie4_5_moe'],
  ...['minimax_m2', 'deepseek_v2', 'deepseek_v3', 'glm4_moe_lite', 'gpt_oss', 'llama4', 'gemma4'],
  ...['qwen3_next', 'qwen3_5_moe_text', 'lfm2_moe'],
])('%s.gguf', (name) => {
  const folder = join('test/golden/fixtures', name);
  const golden = JSON.parse(readFileSync(join(folder, 'golden.json'), 'utf8')) as Golden;
  const expectedLogits = floats(join(folder, 'logits.f32'));

  it.each(golden.prompts)('$name', ({ inputIds, greedyIds, firstRow }) => {
    const logitsPath = join(newFolder(), 'logits.f32');
    const model = join('test/fixtures/gguf/golden', `${name}.gguf`);
    const output = execFileSync(
      process.execPath,
      [
        ...[
          'infer.js',
          '--model',
          model,
          '--input-ids',
          inputIds.join(','),
          '--max-tokens',
          `${greedyIds.length}`,
        ],
        ...[
          '--temperature',
          '0',
          '--ignore-eos',
          '--units',
          '2',
          '--gpu',
          'off',
          '--json',
          '--logits-out',
          logitsPath,
        ],
      ],
      { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
    );
    expect((JSON.parse(output) as { tokenIds: number[] }).tokenIds).toEqual(greedyIds);
    const logits = floats(logitsPath);
    const expected = expectedLogits.subarray(firstRow * golden.vocabSize).subarray(0, logits.length);
    expect(logits.length).toBe(greedyIds.length * golden.vocabSize);
    let [largestError, largest] = [0, 0];
    logits.forEach((value, i) => {
      largestError = Math.max(largestError, Math.abs(value - (expected[i] ?? Number.NaN)));
      largest = Math.max(largest, Math.abs(expected[i] ?? 0));
    });
    expect(largestError / largest).toBeLessThanOrEqual(TOLERANCE);
  });
});
