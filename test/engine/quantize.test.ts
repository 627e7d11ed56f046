/**
 * Loading with `quantize`: the same numbers as from the file that gguf-py quantised from the same checkpoint
 * (scripts/goldens/quantize_fixtures.py), whatever the slicing; the memory it saves; and what is refused.
 */
import { describe, expect, it } from 'vitest';
import type { LoadOptions } from '../../src/index.js';
import { QUANTIZE_FORMATS } from '../../src/options/quantize-formats.js';
import { nearmoe } from './built.js';

const FIXTURES = 'test/fixtures/quantize';
const inputIds = [101, 32, 116, 104, 101, 44, 110, 7, 45, 200, 64, 64, 3];

async function run(options: LoadOptions) {
  const model = await nearmoe.loadModel({ units: 2, pinThreads: false, ...options });
  try {
    const request = {
      temperature: 0,
      maxTokens: 12,
      ignoreEos: true,
      captureLogits: true,
      recordRouting: true,
    };
    const { tokenIds, logits, routing } = await model.generate({ inputIds }, request).result;
    const expertBytes = model.info.memory
      .filter(({ kind }) => kind === 'experts')
      .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    return { tokenIds, logits: logits?.values ?? new Float32Array(0), routing, expertBytes };
  } finally {
    await model.dispose();
  }
}

describe('quantize', () => {
  it.each([
    { units: 1 },
    { units: 2 },
    { units: 2, tpDegree: 1 },
    { units: 2, gpu: 'host', vram: '1MB' } as const,
  ])('q8_0 has the logits of the q8_0 file, bit for bit: %o', async (options) => {
    const ours = await run({ model: `${FIXTURES}/checkpoint`, quantize: 'q8_0', ...options });
    const file = await run({ model: `${FIXTURES}/q8_0.gguf`, ...options });
    expect(ours.logits.length).toBeGreaterThan(12 * 200);
    expect(ours.logits).toEqual(file.logits);
    expect(ours.tokenIds).toEqual(file.tokenIds);
    expect(ours.expertBytes).toBe(file.expertBytes);
  });

  it('q4_0 routes as the q4_0 file does; only its output matrix is another (q6_k beside q8_0)', async () => {
    const ours = await run({ model: `${FIXTURES}/checkpoint`, quantize: 'q4_0' });
    const file = await run({ model: `${FIXTURES}/q4_0.gguf` });
    const prompt = inputIds.length * 2 * 2;
    expect(ours.routing?.ids.subarray(0, prompt)).toEqual(file.routing?.ids.subarray(0, prompt));
    expect(ours.expertBytes).toBe(file.expertBytes);
    const row = ours.logits.length / 12;
    const largest = file.logits.subarray(0, row).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    let difference = 0;
    for (let i = 0; i < row; i++)
      difference = Math.max(difference, Math.abs((ours.logits[i] ?? 0) - (file.logits[i] ?? 0)));
    expect(difference).toBeGreaterThan(0);
    expect(difference).toBeLessThan(0.03 * largest);
  });

  it.each(QUANTIZE_FORMATS)('%s holds less than bfloat16 and stays near it', async (quantize) => {
    const exact = await run({ model: `${FIXTURES}/checkpoint` });
    const ours = await run({ model: `${FIXTURES}/checkpoint`, quantize });
    expect(ours.expertBytes).toBeLessThan(0.75 * exact.expertBytes);
    const row = ours.logits.length / 12;
    let [dot, ours2, exact2] = [0, 0, 0];
    for (let i = 0; i < row; i++) {
      const [a, b] = [ours.logits[i] ?? 0, exact.logits[i] ?? 0];
      [dot, ours2, exact2] = [dot + a * b, ours2 + a * a, exact2 + b * b];
    }
    // Untrained weights: 4-bit rounding also flips some routing (mxfp4 gave 0.87); unrelated logits would give 0.
    expect(dot / Math.sqrt(ours2 * exact2)).toBeGreaterThan(0.8);
  });

  it('is refused where the weights are quantised already', async () => {
    await expect(run({ model: `${FIXTURES}/q8_0.gguf`, quantize: 'q4_0' })).rejects.toMatchObject({
      code: 'ERR_OPTION',
      option: 'quantize',
    });
  });
});
