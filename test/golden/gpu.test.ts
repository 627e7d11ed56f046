/**
 * Every golden checkpoint through the GPU library under CPU emulation: attention, router and the plan's experts on the
 * emulated GPU, the rest on the units; on a real one with NEARMOE_GPU_KIND=cuda (`npm run check:gpu`). A small set by
 * default; NEARMOE_GPU_MATRIX=1 (`npm run test:gpu-matrix`) takes every policy, prefetch rule, layout and chunk size.
 */
import { afterEach, describe, expect, it } from 'vitest';
import type { GenerateResult } from '../../src/engine/result.js';
import { prefetchNames, schedulerEntries } from '../../src/schedule/registry.js';
import { Fixture, fixtureNames } from './fixture.js';

/** As for the units (architectures.test.ts). */
const TOLERANCE = 1e-3;
/** As for the units: over the largest logit, what activations in 8 bits cost. */
const QUANTISED_TOLERANCE = 0.05;

const whole = process.env.NEARMOE_GPU_MATRIX === '1';
const gpu = process.env.NEARMOE_GPU_KIND === 'cuda' ? 'cuda' : 'emulated';
const isVariant = (name: string) => name.includes('-');

type Case = { units: number; tpDegree: number; policy: string; prefetch: string; maxBatchTokens: number };

/** Transfers in each layer; transfers and prefetches side by side; single tokens and odd chunks. */
const small: Case[] = [
  { units: 1, tpDegree: 1, policy: 'gpu-on-demand', prefetch: 'off', maxBatchTokens: 512 },
  { units: 2, tpDegree: 2, policy: 'balanced', prefetch: 'lookahead', maxBatchTokens: 13 },
];

const layouts = [
  { units: 1, tpDegree: 1, maxBatchTokens: 5 },
  { units: 2, tpDegree: 2, maxBatchTokens: 512 },
  { units: 3, tpDegree: 2, maxBatchTokens: 33 },
] as const;

/** Every policy with every prefetch rule; layouts take turns, so that each policy and each rule meets all of them. */
const matrix: Case[] = schedulerEntries().flatMap(({ name: policy }, p) =>
  prefetchNames().map((prefetch, f) => {
    const layout = layouts[(p + f) % layouts.length] ?? layouts[0];
    return { ...layout, policy, prefetch };
  }),
);

let fixture: Fixture | undefined;
afterEach(() => fixture?.dispose());

function expectGolden(loaded: Fixture, results: readonly GenerateResult[]): void {
  loaded.golden.prompts.forEach((prompt, index) => {
    const result = results[index];
    if (result === undefined) throw new Error('a prompt has no result');
    expect(loaded.logitError(prompt, result), `logit error of ${prompt.name}`).toBeLessThanOrEqual(TOLERANCE);
    expect(result.tokenIds, prompt.name).toEqual(prompt.greedyIds);
  });
}

/** The default is a quarter of the experts; this checkpoint has four, and a slot is larger than one by its padding. */
const vramOf = (name: string) => (name === 'deepseek_v3-fp8' ? { vram: 50_000 } : {});
const names = fixtureNames.filter((name) => whole || !isVariant(name));

describe.each(names)('%s', (name) => {
  it.each(whole ? matrix : small)(
    '$units units, TP degree $tpDegree, policy $policy, prefetch $prefetch, chunks of $maxBatchTokens',
    { timeout: 120_000 },
    ({ units, tpDegree, policy, prefetch, maxBatchTokens }) => {
      fixture = new Fixture(name, { units, tpDegree, gpu, ...vramOf(name) });
      expect(fixture.device.info.gpu).toBe(gpu);
      const results = fixture.run({ names: { policy, prefetch, cachePolicy: 'score' }, maxBatchTokens });
      expectGolden(fixture, results);
      const { activated, onGpu, onNdp } = results[0]?.experts ?? { activated: 0, onGpu: 0, onNdp: 0 };
      expect(onGpu + onNdp).toBe(activated);
      if (policy === 'gpu-on-demand') expect(onGpu).toBeGreaterThan(0);
      if (policy === 'ndp-only') expect(onGpu).toBe(0);
      const { off, replays } = fixture.device.gpuGraphs();
      expect({ off, replayed: replays > 0 }).toEqual({ off: '', replayed: true });
    },
  );
});

describe('gpt_oss with its experts in MXFP4 as stored', () => {
  it.each([1, 2])('%i units', { timeout: 120_000 }, (units) => {
    fixture = new Fixture('gpt_oss', { units, gpu }, true);
    const names = { policy: 'gpu-on-demand', prefetch: 'prefill', cachePolicy: 'score' };
    const results = fixture.run({ names, maxBatchTokens: units === 1 ? 512 : 7 });
    expect(results[0]?.experts.onGpu).toBeGreaterThan(0);
    for (const [index, prompt] of fixture.golden.prompts.entries()) {
      const result = results[index];
      if (result === undefined) throw new Error('a prompt has no result');
      // The first row alone: a token that differs makes all later rows differ.
      expect(fixture.logitError(prompt, result, 1), prompt.name).toBeLessThanOrEqual(QUANTISED_TOLERANCE);
    }
  });
});
