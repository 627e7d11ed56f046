/** Every golden checkpoint, for every number of units, TP degree, GPU lane, policy, prefetch and chunk size. */
import { afterEach, describe, expect, it } from 'vitest';
import { binding } from '../../src/binding.js';
import type { GenerateResult } from '../../src/engine/result.js';
import { prefetchNames, schedulerEntries } from '../../src/schedule/registry.js';
import { Fixture, fixtureNames } from './fixture.js';

/** Largest logit error over the largest logit; docs/architecture.md tells the same figure. */
const TOLERANCE = 1e-3;

const layouts = [1, 2, 3, 4].flatMap((units) =>
  Array.from({ length: units }, (_, index) => ({ units, tpDegree: index + 1 })),
);
const plannings = schedulerEntries().flatMap(({ name: policy }) =>
  prefetchNames().map((prefetch) => ({ policy, prefetch, cachePolicy: 'score' })),
);
/** Variants of an architecture (rotary scaling, storage) differ from it in one thing: a few layouts tell. */
const isVariant = (name: string) => name.includes('-');

let fixture: Fixture | undefined;
afterEach(() => fixture?.dispose());

function expectGolden(loaded: Fixture, results: GenerateResult[], about: string): void {
  loaded.golden.prompts.forEach((prompt, index) => {
    const result = results[index];
    if (result === undefined) throw new Error('a prompt has no result');
    const error = loaded.logitError(prompt, result);
    expect(error, `logit error of ${prompt.name}, ${about}`).toBeLessThanOrEqual(TOLERANCE);
    expect(result.tokenIds, `${prompt.name}, ${about}`).toEqual(prompt.greedyIds);
  });
}

function expectSameBits(results: GenerateResult[], reference: GenerateResult[], about: string): void {
  results.forEach((result, index) => {
    const bits = (from: GenerateResult | undefined) =>
      new Uint32Array(from?.logits?.values.buffer ?? new ArrayBuffer(0));
    const [own, other] = [bits(result), bits(reference[index])];
    expect(own.length).toBeGreaterThan(0);
    expect(own.length === other.length && own.every((value, at) => value === other[at]), about).toBe(true);
  });
}

describe.each(fixtureNames.filter((name) => !isVariant(name)))('%s', (name) => {
  it.each(layouts)('$units units, TP degree $tpDegree, no GPU lane', (layout) => {
    fixture = new Fixture(name, { ...layout, gpu: 'off' });
    const whole = fixture.run({ together: true });
    expectGolden(fixture, whole, 'one batch');
    for (const maxBatchTokens of [1, 5, 33]) {
      const chunked = fixture.run({ maxBatchTokens, together: maxBatchTokens !== 5 });
      expectSameBits(chunked, whole, `chunks of ${maxBatchTokens}`);
    }
  });

  it.each(layouts)('$units units, TP degree $tpDegree, beside a host GPU', (layout) => {
    fixture = new Fixture(name, { ...layout, gpu: 'host', gpuThreads: 1 });
    let reference: GenerateResult[] | undefined;
    for (const names of plannings) {
      const about = `policy ${names.policy}, prefetch ${names.prefetch}`;
      const results = fixture.run({ names });
      if (reference === undefined) expectGolden(fixture, results, about);
      else expectSameBits(results, reference, about);
      reference ??= results;
    }
  });

  it('the plan differs between policies though the output does not', () => {
    fixture = new Fixture(name, { units: 2, gpu: 'host', vram: 1e9 });
    const onGpu = (policy: string) =>
      fixture?.run({ names: { policy, prefetch: 'off', cachePolicy: 'lru' } })[0]?.experts.onGpu ??
      Number.NaN;
    expect(onGpu('ndp-only')).toBe(0);
    expect(onGpu('gpu-on-demand')).toBeGreaterThan(0);
  });
});

describe.each(binding().cpuInfo().runnableIsas)('kernels %s', (isa) => {
  it.each(fixtureNames.filter((name) => !isVariant(name)))('%s', (name) => {
    fixture = new Fixture(name, { units: 2, gpu: 'off', isa });
    expect(fixture.device.info.isa).toBe(isa);
    const whole = fixture.run({});
    expectGolden(fixture, whole, isa);
    expectSameBits(fixture.run({ maxBatchTokens: 11 }), whole, `${isa}, chunks of 11`);
  });
});

/** Over the largest logit: what activations in 8 bits cost, which products with quantised weights use. */
const QUANTISED_TOLERANCE = 0.05;

describe('gpt_oss with its experts in MXFP4 as stored', () => {
  it.each([1, 2])('%s units', (units) => {
    fixture = new Fixture('gpt_oss', { units, gpu: 'off' }, true);
    // Under a byte for each value of an expert's three matrices: nothing was unpacked to a wider type.
    expect(fixture.device.info.expertBytes).toBeLessThan(3 * 64 * 96);
    const results = fixture.run({});
    const { prompts } = fixture.golden;
    for (const [index, prompt] of prompts.entries()) {
      const result = results[index];
      if (result === undefined) throw new Error('a prompt has no result');
      // The first row alone: a token that differs makes all later rows differ.
      expect(fixture.logitError(prompt, result, 1), prompt.name).toBeLessThanOrEqual(QUANTISED_TOLERANCE);
    }
    expectSameBits(fixture.run({ maxBatchTokens: 7 }), results, 'chunks of 7');
  });
});

describe.each(fixtureNames.filter(isVariant))('%s', (name) => {
  it.each([
    { units: 1, gpu: 'off' },
    { units: 2, gpu: 'off' },
    { units: 2, gpu: 'host' },
  ] as const)('$units units, gpu $gpu', (options) => {
    fixture = new Fixture(name, options);
    const names = options.gpu === 'off' ? undefined : plannings[0];
    const whole = fixture.run({ names });
    expectGolden(fixture, whole, 'one batch');
    expectSameBits(fixture.run({ names, maxBatchTokens: 7 }), whole, 'chunks of 7');
  });
});
