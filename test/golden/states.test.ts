/**
 * Models with states in attention's place, on the real device: taking over a beginning, preemption, a step that was
 * aborted halfway and neighbours in the batch change no bit of what they compute.
 */
import { afterEach, describe, expect, it } from 'vitest';
import type { LoadableDevice } from '../../src/device/native.js';
import { calibrate } from '../../src/engine/calibrate.js';
import type { Engine } from '../../src/engine/engine.js';
import { createEngine } from '../../src/engine/load.js';
import { createPlanner } from '../../src/engine/planning.js';
import type { GenerateResult } from '../../src/engine/result.js';
import type { RequestOptions } from '../../src/options.js';
import { Fixture } from './fixture.js';

const FAMILIES = ['qwen3_next', 'qwen3_5_moe_text', 'lfm2_moe'];

let fixture: Fixture | undefined;
afterEach(() => fixture?.dispose());

/** An engine over the fixture, whose requests run one after the other or together. */
class Runner {
  readonly engine: Engine;
  readonly results = new Map<number, GenerateResult>();
  #next = 0;

  constructor(
    { device, opened, settings, cancelFlags }: Fixture,
    used: LoadableDevice = device,
    changes = {},
  ) {
    const names = { policy: 'balanced', prefetch: 'off', cachePolicy: 'lru' };
    const planner =
      device.info.gpu === 'off'
        ? undefined
        : createPlanner(device.info, opened.spec, names, calibrate(device, device.info, 64));
    this.engine = createEngine(used, opened, { ...settings, ...changes }, planner, cancelFlags, {
      step: (parts) => {
        for (const part of parts) this.engine.acknowledge(part.id, part.text === '' ? 0 : 1);
      },
      finished: (id, result) => this.results.set(id, result),
      failed: (_, error) => {
        throw error;
      },
    });
  }

  add(prompt: readonly number[], maxTokens: number, cancelSlot = 0): number {
    const options: RequestOptions = { maxTokens, temperature: 0, ignoreEos: true, captureLogits: true };
    this.engine.add(this.#next, cancelSlot, Int32Array.from(prompt), options);
    return this.#next++;
  }

  finish(id: number): GenerateResult {
    while (this.engine.step());
    const result = this.results.get(id);
    if (result === undefined) throw new Error(`request ${id} gave no result`);
    return result;
  }

  run(prompt: readonly number[], maxTokens: number): GenerateResult {
    return this.finish(this.add(prompt, maxTokens));
  }
}

/** Tokens and the bits of all logits. */
function bitsOf({ tokenIds, logits }: GenerateResult) {
  if (logits === undefined) throw new Error('no logits were kept');
  const { buffer, byteOffset, byteLength } = logits.values;
  return { tokenIds, bits: Buffer.from(buffer, byteOffset, byteLength).toString('base64') };
}

function longPrompt({ golden }: Fixture): number[] {
  const prompt = golden.prompts.find(({ name }) => name === 'long');
  if (prompt === undefined) throw new Error('no long prompt');
  return prompt.inputIds;
}

describe.each(FAMILIES)('%s', (name) => {
  it.each([1, 2, 3])('the prefix cache changes no bit, %s units', (units) => {
    fixture = new Fixture(name, { units, gpu: 'off' });
    const prompt = longPrompt(fixture);
    const plain = new Runner(fixture, fixture.device, { prefixCache: false });
    const expected = bitsOf(plain.run(prompt, 40));
    const cached = new Runner(fixture);
    // The second one finds where the first has been and keeps the state there, for the third.
    const runs = [0, 1, 2].map(() => cached.run(prompt, 40));
    for (const run of runs) expect(bitsOf(run)).toEqual(expected);
    expect(runs[2]?.usage.cachedPromptTokens).toBeGreaterThan(0);
    const turn = [...prompt, ...expected.tokenIds, ...prompt.slice(0, 9)];
    const next = cached.run(turn, 8);
    expect(next.usage.cachedPromptTokens).toBeGreaterThan(prompt.length);
    expect(bitsOf(next)).toEqual(bitsOf(plain.run(turn, 8)));
  });

  it.each([
    { maxBatchTokens: 7, prefixCache: true },
    { maxBatchTokens: 64, prefixCache: false },
  ])('preemption changes no bit, chunks of $maxBatchTokens, prefix cache $prefixCache', (changes) => {
    fixture = new Fixture(name, { units: 2, gpu: 'off', maxContext: 192, kvTokens: 192 });
    const prompt = longPrompt(fixture);
    const prompts = [prompt, [...prompt.slice(0, 40), ...prompt.slice(0, 30)], prompt.slice(3, 50)];
    const alone = new Runner(fixture, fixture.device, { prefixCache: false });
    const expected = prompts.map((tokens) => bitsOf(alone.run(tokens, 60)));
    const beside = new Runner(fixture, fixture.device, changes);
    const ids = prompts.map((tokens) => beside.add(tokens, 60));
    for (const [index, id] of ids.entries()) expect(bitsOf(beside.finish(id))).toEqual(expected[index]);
  });

  it('the prefix cache changes no token on a GPU', { timeout: 60_000 }, () => {
    fixture = new Fixture(name, { units: 2, gpu: 'emulated' });
    const prompt = longPrompt(fixture);
    const { tokenIds } = new Runner(fixture, fixture.device, { prefixCache: false }).run(prompt, 12);
    const cached = new Runner(fixture);
    const runs = [0, 1, 2].map(() => cached.run(prompt, 12));
    for (const run of runs) expect(run.tokenIds).toEqual(tokenIds);
    expect(runs[2]?.usage.cachedPromptTokens).toBeGreaterThan(0);
  });

  it.each([
    { gpu: 'host', gpuThreads: 1 },
    { gpu: 'emulated', gpuThreads: undefined },
  ] as const)(
    'a step that was aborted behind a layer with a state is computed again as if it had not been, GPU $gpu',
    {
      timeout: 60_000,
    },
    (lane) => {
      fixture = new Fixture(name, { units: 2, ...lane });
      const { device, cancelFlags } = fixture;
      const prompt = longPrompt(fixture);
      // On a GPU bits depend on how many tokens a step has.
      const valuesOf = lane.gpu === 'host' ? bitsOf : ({ tokenIds }: GenerateResult) => tokenIds;
      const expected = valuesOf(new Runner(fixture).run(prompt, 12));
      let steps = 0;
      const cancelling: LoadableDevice = Object.create(device, {
        info: { get: () => device.info },
        beginStep: {
          value: (batch: Parameters<LoadableDevice['beginStep']>[0]) => {
            steps++;
            device.beginStep(batch);
          },
        },
        runAttention: {
          value: (layer: number) => {
            if (steps === 5 && layer === 3) Atomics.store(cancelFlags, 1, 1);
            return device.runAttention(layer);
          },
        },
      }) as LoadableDevice;
      for (const method of METHODS)
        Object.defineProperty(cancelling, method, { value: device[method].bind(device) });
      const runner = new Runner(fixture, cancelling);
      const id = runner.add(prompt, 12);
      const other = runner.add(prompt.slice(0, 30), 12, 1);
      expect(valuesOf(runner.finish(id))).toEqual(expected);
      expect(runner.results.get(other)?.finishReason).toBe('cancelled');
    },
  );
});

/** What an engine calls besides. */
const METHODS = [
  ...(['nowUs', 'routing', 'lookahead', 'submitExperts', 'submitPrefetch', 'completedTransfers'] as const),
  ...(['runLogits', 'observations', 'opTimesUs', 'takeTraceEvents', 'setTracing'] as const),
];
