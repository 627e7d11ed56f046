/** The lookahead in the real engine: how many of the next layer's experts it finds, and that it changes no token. */
import { describe, expect, it } from 'vitest';
import type { LoadOptions } from '../../src/index.js';
import { nearmoe } from './built.js';

const prompt = 'Once upon a time there was a little fox who lived near the river.';

async function run(options: Partial<LoadOptions>) {
  const model = await nearmoe.loadModel({
    model: 'models/demo',
    units: 2,
    gpu: 'host',
    gpuThreads: 1,
    pinThreads: false,
    ...options,
  });
  try {
    const { tokenIds, experts } = await model.generate(prompt, {
      temperature: 0,
      maxTokens: 80,
      ignoreEos: true,
    }).result;
    return { tokenIds, experts, moeLayers: model.info.moeLayers, topK: model.info.numExpertsPerTok };
  } finally {
    await model.dispose();
  }
}

describe("prefetch 'lookahead'", () => {
  it("finds most of the next layer's experts of the demo model, and leaves the text as it is", async () => {
    const [off, on] = [await run({ prefetch: 'off' }), await run({ prefetch: 'lookahead' })];
    expect(on.tokenIds).toEqual(off.tokenIds);
    expect([off.experts.guessable, off.experts.guessed]).toEqual([0, 0]);
    // Each decode step guesses for every layer but the first; the prompt is short enough for guesses too.
    expect(on.experts.guessable).toBeGreaterThanOrEqual(79 * (on.moeLayers - 1) * on.topK);
    // Guessing at random finds a quarter (4 of 16).
    expect(on.experts.guessed / on.experts.guessable).toBeGreaterThan(0.5);
    expect(on.experts.prefetchUsed).toBeGreaterThan(0);
  });

  it.each([{ gpuThreads: 2 }, { units: 3, tpDegree: 1 }])(
    'guesses the same on other threads: %o',
    async (options) => {
      const [one, other] = [
        await run({ prefetch: 'lookahead' }),
        await run({ prefetch: 'lookahead', ...options }),
      ];
      expect(other.experts.guessable).toBe(one.experts.guessable);
      // Other slices add in another order, which may tip a guess now and then.
      expect(Math.abs(other.experts.guessed - one.experts.guessed)).toBeLessThan(0.01 * one.experts.guessed);
    },
  );
});
