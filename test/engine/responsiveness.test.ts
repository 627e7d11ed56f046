/** A model large enough that steps take a while: cancelling within a layer's time, and a main thread that stays free. */
import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LoadOptions, Model } from '../../src/index.js';
import { nearmoe } from './built.js';
import { writeSyntheticCheckpoint } from './synthetic-checkpoint.js';

const layers = 8;
let folder = '';
beforeAll(() => {
  folder = writeSyntheticCheckpoint({
    hiddenSize: 256,
    layers,
    numExperts: 16,
    topK: 4,
    intermediateSize: 128,
    maxPositions: 4096,
  });
});
afterAll(() => rmSync(folder, { recursive: true }));

const load = (options: Partial<LoadOptions> = {}): Promise<Model> =>
  nearmoe.loadModel({ model: folder, units: 2, maxBatchTokens: 1024, ...options });
const promptOf = (length: number) => ({
  inputIds: Array.from({ length }, (_, i) => 1 + ((i * 37) % 280)),
});

/** Lateness of 2 ms timers on this thread until `stop` is called, milliseconds, ascending. */
function watchEventLoop() {
  const lateMs: number[] = [];
  let running = true;
  const done = (async () => {
    while (running) {
      const startMs = performance.now();
      await new Promise((resolve) => setTimeout(resolve, 2));
      lateMs.push(performance.now() - startMs - 2);
    }
    return lateMs.sort((a, b) => a - b);
  })();
  return () => {
    running = false;
    return done;
  };
}

/** A prompt whose prefill takes about a second with the kernels and threads at hand. */
async function longPrompt(model: Model) {
  const { timings } = await model.generate(promptOf(128), { maxTokens: 1 }).result;
  return promptOf(Math.round(Math.min(3000, Math.max(200, timings.prefillTokensPerSecond))));
}

describe('cancelling', () => {
  it.each(['off', 'host'] as const)('ends a long prefill within a layer’s time, gpu %s', async (gpu) => {
    const model = await load({ gpu });
    const prompt = await longPrompt(model);
    const whole = await model.generate(prompt, { maxTokens: 1, trace: true }).result;
    const steps = (whole.trace ?? []).filter((span) => span.name === 'step');
    const longestMs = Math.max(...steps.map((span) => (span.endUs - span.startUs) / 1e3));
    const latencies: number[] = [];
    for (let round = 0; round < 5; round++) {
      const controller = new AbortController();
      const generation = model.generate(prompt, { signal: controller.signal });
      await new Promise((resolve) => setTimeout(resolve, longestMs / 3 + round));
      const startMs = performance.now();
      controller.abort();
      await expect(generation.result).rejects.toMatchObject({ name: 'AbortError' });
      latencies.push(performance.now() - startMs);
    }
    latencies.sort((a, b) => a - b);
    expect(longestMs).toBeGreaterThan(20);
    // A step has `layers` layers and the logits; attention costs grow along the prompt. 10 ms are for messages and for
    // the scheduling of threads on a machine with two cores.
    expect(latencies[2]).toBeLessThan((2 * longestMs) / layers + 10);
    await model.dispose();
  });
});

describe('the main thread', () => {
  it('stays free while a model loads and generates', async () => {
    const stop = watchEventLoop();
    const model = await load();
    const streams = Array.from({ length: 16 }, async (_, index) => {
      const request = { temperature: 1, seed: index, maxTokens: 32, ignoreEos: true };
      for await (const part of model.generate(promptOf(20 + index), request)) {
        expect(part).not.toBe('');
      }
    });
    await Promise.all(streams);
    await model.dispose();
    const lateMs = await stop();
    expect(lateMs.length).toBeGreaterThan(50);
    expect(lateMs[Math.floor(0.99 * lateMs.length)]).toBeLessThan(20);
  });
});
