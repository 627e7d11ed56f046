import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UNREAD_PARTS } from '../../../src/engine/messages.js';
import { DeviceError, GpuError } from '../../../src/errors.js';
import { GPU_PLACE } from '../../../src/schedule/plan.js';
import { TOY, toyAnswer, toyExperts } from './fake-device.js';
import { Harness, type HarnessOptions, toyText } from './harness.js';

const prompt = (length: number, seed = 1) => Array.from({ length }, (_, i) => (i * 13 + seed * 29) % 90);

describe('Engine', () => {
  it.each([1, 7, 32, 33, 64])('gives the same answer whatever the chunk size (%i)', (maxBatchTokens) => {
    const harness = new Harness({ maxBatchTokens });
    const result = harness.generate(prompt(70), { maxTokens: 40 });
    expect(result.tokenIds).toEqual(toyAnswer(prompt(70), 40));
    expect(result.text).toBe(toyText(result.tokenIds));
    expect(result.finishReason).toBe('length');
    expect(harness.device.steps.length).toBe(Math.ceil(70 / maxBatchTokens) + 39);
  });

  it('gives each of many requests the answer it would get alone, in any batch', () => {
    const request = fc.record({
      length: fc.integer({ min: 1, max: 90 }),
      maxTokens: fc.integer({ min: 1, max: 40 }),
      delay: fc.nat(30),
    });
    fc.assert(
      fc.property(
        fc.array(request, { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 1, max: 50 }),
        fc.integer({ min: 5, max: 12 }),
        (requests, maxBatchTokens, blocks) => {
          const harness = new Harness({ maxBatchTokens, blocks, maxContext: 140, maxSequences: 3 });
          requests.forEach(({ length, maxTokens, delay }, index) => {
            harness.add(index + 1, prompt(length, index), { maxTokens });
            for (let i = 0; i < delay; i++) harness.engine.step();
          });
          harness.run();
          requests.forEach(({ length, maxTokens }, index) => {
            expect(harness.results.get(index + 1)?.tokenIds).toEqual(
              toyAnswer(prompt(length, index), maxTokens),
            );
          });
          expect(harness.engine.requestCount).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('scores each prompt token once, also where blocks run out and sequences are computed anew', () => {
    const harness = new Harness({ maxBatchTokens: 40, blocks: 7, maxContext: 140, maxSequences: 3 });
    const prompts = [60, 1, 33, 90].map((length, index) => prompt(length, index));
    prompts.forEach((ids, index) => {
      harness.add(index + 1, ids, { maxTokens: 40, promptLogprobs: 1 });
    });
    harness.run();
    expect([...harness.errors]).toEqual([]);
    prompts.forEach((ids, index) => {
      const result = harness.results.get(index + 1);
      expect(result?.tokenIds).toEqual(toyAnswer(ids, 40));
      expect(result?.promptLogprobs?.map(({ tokenId }) => tokenId)).toEqual(ids.slice(1));
      // Each is told beside what the model would have said in its place.
      const likeliest = ids.slice(1).map((_, i) => toyAnswer(ids.slice(0, i + 1), 1)[0]);
      expect(result?.promptLogprobs?.map(({ top }) => top[0]?.tokenId)).toEqual(likeliest);
    });
  });

  it('ends at an end-of-text token unless told to ignore it', () => {
    const next = (tokens: number[]) => (tokens.length === 8 ? TOY.eosId : 5);
    const result = new Harness({ next }).generate(prompt(5), { maxTokens: 10 });
    expect(result).toMatchObject({
      finishReason: 'eos',
      tokenIds: [5, 5, 5, TOY.eosId],
      text: toyText([5, 5, 5]),
    });
    const on = new Harness({ next }).generate(prompt(5), { maxTokens: 6, ignoreEos: true });
    expect(on).toMatchObject({ finishReason: 'length', tokenIds: [5, 5, 5, TOY.eosId, 5, 5] });
  });

  it('ends at a stop text, which it leaves out, also when it spans tokens', () => {
    const answer = toyAnswer(prompt(5), 20);
    const stop = toyText(answer.slice(6, 9));
    const harness = new Harness();
    const result = harness.generate(prompt(5), { maxTokens: 20, stop: ['never', stop] });
    expect(result.finishReason).toBe('stop');
    expect(result.text).toBe(toyText(answer.slice(0, 6)));
    expect(result.tokenIds).toEqual(answer.slice(0, 9));
  });

  it('gives out what was held back when the answer ends otherwise', () => {
    const answer = toyAnswer(prompt(5), 4);
    const result = new Harness().generate(prompt(5), { maxTokens: 4, stop: `${toyText(answer.slice(2))}~` });
    expect(result).toMatchObject({ finishReason: 'length', text: toyText(answer) });
  });

  it('ends where the context ends', () => {
    const result = new Harness({ maxContext: 20 }).generate(prompt(15), { maxTokens: 100 });
    expect(result).toMatchObject({ finishReason: 'context', tokenIds: toyAnswer(prompt(15), 5) });
  });

  it('refuses prompts that cannot be computed, and goes on', () => {
    const harness = new Harness({ maxContext: 20 });
    const refused = (ids: number[]) => expect(() => harness.add(1, ids));
    refused([]).toThrow('at least one token');
    refused([1, 97]).toThrow('expected an id from 0 to 96, got 97');
    refused([-1]).toThrow('got -1');
    refused(prompt(20)).toThrow('at most 19 tokens (the context is 20), got 20');
    expect(harness.generate(prompt(5), { maxTokens: 1 }).tokenIds).toEqual(toyAnswer(prompt(5), 1));
  });

  it('cancels in the middle of a step and computes it anew for the others', () => {
    const harness = new Harness();
    harness.add(1, prompt(10, 1), { maxTokens: 30 });
    harness.add(2, prompt(10, 2), { maxTokens: 30 });
    for (let i = 0; i < 5; i++) harness.engine.step();
    let layers = 0;
    harness.device.onLayer = (layer) => {
      if (layer === 1) Atomics.store(harness.cancelFlags, 2, 1);
      layers++;
    };
    harness.engine.step();
    expect(layers).toBe(2);
    expect(harness.results.size).toBe(0);
    harness.run();
    expect(harness.results.get(2)).toMatchObject({
      finishReason: 'cancelled',
      tokenIds: toyAnswer(prompt(10, 2), 5),
      text: toyText(toyAnswer(prompt(10, 2), 5)),
    });
    expect(harness.results.get(1)?.tokenIds).toEqual(toyAnswer(prompt(10, 1), 30));
  });

  it('cancels during prefill, and a waiting request before it starts', () => {
    const harness = new Harness({ maxBatchTokens: 8, maxSequences: 1 });
    harness.add(1, prompt(100));
    harness.add(2, prompt(5));
    harness.engine.step();
    harness.engine.cancel(2);
    harness.engine.cancel(1);
    harness.engine.cancel(77);
    expect(harness.engine.step()).toBe(false);
    expect(harness.results.get(1)).toMatchObject({ finishReason: 'cancelled', text: '', tokenIds: [] });
    expect(harness.results.get(1)?.devices.steps).toBe(1);
    expect(harness.results.get(2)?.devices.steps).toBe(0);
  });

  it('pauses for a reader that lags, and goes on when it reads', () => {
    const harness = new Harness();
    harness.add(1, prompt(5), { maxTokens: 200 });
    harness.run({ acknowledge: false });
    expect(harness.parts.get(1)?.length).toBe(UNREAD_PARTS);
    harness.add(2, prompt(6, 2), { maxTokens: 10 });
    harness.run({ acknowledge: false });
    expect(harness.results.get(2)?.tokenIds).toEqual(toyAnswer(prompt(6, 2), 10));
    harness.engine.acknowledge(1, 20);
    harness.run({ acknowledge: false });
    expect(harness.parts.get(1)?.length).toBe(UNREAD_PARTS + 20);
    harness.run();
    harness.engine.acknowledge(1, UNREAD_PARTS);
    harness.run();
    expect(harness.results.get(1)?.tokenIds).toEqual(toyAnswer(prompt(5), 200));
  });

  it('a failing device fails the requests of the step and no others', () => {
    const harness = new Harness({ maxSequences: 1 });
    harness.add(1, prompt(5), { maxTokens: 3 });
    harness.add(2, prompt(5), { maxTokens: 3 });
    harness.device.onLayer = () => {
      harness.device.onLayer = () => undefined;
      throw new Error('unit 0 is on fire');
    };
    harness.run();
    expect(harness.errors.get(1)).toMatchObject({ message: 'unit 0 is on fire' });
    expect(harness.results.get(2)?.tokenIds).toEqual(toyAnswer(prompt(5), 3));
  });

  it('a failing GPU is left aside between two tokens, and no text is lost', () => {
    const failures: unknown[] = [];
    const harness: Harness = new Harness({
      gpu: 'host',
      expertSlots: 4,
      restart: (failure) => {
        failures.push(failure);
        harness.device.loseGpu();
      },
    });
    harness.add(1, prompt(70), { maxTokens: 30 });
    harness.add(2, prompt(70), { maxTokens: 30 });
    harness.add(3, prompt(9), { maxTokens: 12 });
    let layers = 0;
    harness.device.onLayer = () => {
      if (++layers === 4 * 9 + 2) throw new GpuError('the GPU failed');
    };
    harness.run();
    expect(failures).toEqual([expect.objectContaining({ code: 'ERR_GPU' })]);
    expect(harness.errors.size).toBe(0);
    expect(harness.results.get(1)?.tokenIds).toEqual(toyAnswer(prompt(70), 30));
    expect(harness.results.get(2)?.tokenIds).toEqual(toyAnswer(prompt(70), 30));
    expect(harness.results.get(3)?.tokenIds).toEqual(toyAnswer(prompt(9), 12));
    expect(harness.results.get(1)?.text).toBe(toyText(toyAnswer(prompt(70), 30)));
    // What was kept of the KV cache died with the GPU: a later request must not take it over.
    harness.device.steps = [];
    harness.add(4, prompt(70), { maxTokens: 2 });
    harness.run();
    expect(harness.results.get(4)?.tokenIds).toEqual(toyAnswer(prompt(70), 2));
  });

  it('where the units cannot take over from the GPU, every request fails with the reason', () => {
    const reason = new DeviceError('the checkpoint is gone');
    const restart = () => {
      throw reason;
    };
    const harness = new Harness({ gpu: 'host', expertSlots: 4, maxSequences: 1, restart });
    harness.add(1, prompt(5), { maxTokens: 3 });
    harness.add(2, prompt(5), { maxTokens: 3 });
    harness.device.onLayer = () => {
      throw new GpuError('the GPU failed');
    };
    harness.run();
    expect([harness.errors.get(1), harness.errors.get(2)]).toEqual([reason, reason]);
  });

  it('an aborted step that nobody asked for is an error, not an endless loop', () => {
    const harness = new Harness();
    harness.add(1, prompt(5));
    harness.device.runLogits = () => ({ status: 'aborted', rows: 0, logits: new Float32Array(0) });
    harness.run();
    expect(harness.errors.get(1)).toMatchObject({ code: 'ERR_DEVICE' });
  });
});

describe('prefix cache', () => {
  it('pays in a second turn only for what is new', () => {
    const harness = new Harness();
    const first = harness.generate(prompt(70), { maxTokens: 40 });
    expect(first.usage.cachedPromptTokens).toBe(0);
    const turn = [...prompt(70), ...first.tokenIds, ...prompt(9, 3)];
    harness.device.steps = [];
    const second = harness.generate(turn, { maxTokens: 5 });
    // 109 of the 110 tokens before were computed, 96 of them in full blocks.
    expect(second.usage).toMatchObject({ promptTokens: 119, cachedPromptTokens: 96 });
    expect(second.tokenIds).toEqual(toyAnswer(turn, 5));
    expect(harness.device.steps[0]?.sequences[0]).toMatchObject({ firstPosition: 96, logitRows: 1 });
    expect(second.timings.prefillTokensPerSecond).toBeCloseTo(23 / 0.00004);
  });

  it('computes every token where the routing is recorded', () => {
    const harness = new Harness();
    harness.generate(prompt(70), { maxTokens: 2 });
    const recorded = harness.generate(prompt(70), { maxTokens: 2, recordRouting: true });
    expect(recorded.usage.cachedPromptTokens).toBe(0);
    expect(recorded.routing).toMatchObject({ tokens: 71, promptTokens: 70 });
  });

  it('is off where told so', () => {
    const harness = new Harness({ prefixCache: false });
    for (const _ of [1, 2]) harness.generate(prompt(70), { maxTokens: 2 });
    expect(harness.results.get(1)?.usage.cachedPromptTokens).toBe(0);
  });

  it.each([
    ['keys and values', undefined],
    ['states', 9],
  ])('changes no answer, whatever is shared, preempted, cancelled or evicted: %s', (_, stateSlots) => {
    const request = fc.record({
      length: fc.integer({ min: 1, max: 120 }),
      fork: fc.nat(120),
      maxTokens: fc.integer({ min: 1, max: 40 }),
      delay: fc.nat(40),
      cancelAfter: fc.option(fc.nat(20)),
    });
    let cachedTokens = 0;
    fc.assert(
      fc.property(
        fc.array(request, { minLength: 2, maxLength: 8 }),
        fc.integer({ min: 1, max: 80 }),
        fc.integer({ min: 5, max: 14 }),
        (requests, maxBatchTokens, blocks) => {
          const limits = { maxBatchTokens, blocks, maxContext: 160, maxSequences: 3 };
          const harness = new Harness({ ...limits, stateSlots });
          const prompts = requests.map(({ length, fork }, index) => [
            ...prompt(Math.min(length, fork)),
            ...prompt(Math.max(0, length - fork), index + 2),
          ]);
          requests.forEach(({ maxTokens, delay, cancelAfter }, index) => {
            harness.add(index + 1, prompts[index] ?? [], { maxTokens });
            for (let i = 0; i < delay; i++) harness.engine.step();
            if (cancelAfter !== null) harness.engine.cancel(1 + (cancelAfter % requests.length));
          });
          harness.run();
          prompts.forEach((tokens, index) => {
            const result = harness.results.get(index + 1);
            const count =
              result?.finishReason === 'cancelled' ? result.tokenIds.length : requests[index]?.maxTokens;
            expect(result?.tokenIds).toEqual(toyAnswer(tokens, count ?? 0));
            expect(result?.usage.cachedPromptTokens).toBeLessThan(tokens.length);
            cachedTokens += result?.usage.cachedPromptTokens ?? 0;
          });
        },
      ),
      { numRuns: 100 },
    );
    expect(cachedTokens).toBeGreaterThan(stateSlots === undefined ? 1000 : 300);
  });
});

describe('states', () => {
  const stateful = (options: HarnessOptions = {}) =>
    new Harness({ stateSlots: 2 * 8 + 4, maxBatchTokens: 64, ...options });
  const reused = (harness: Harness, tokens: number[], maxTokens = 2) => {
    const result = harness.generate(tokens, { maxTokens });
    expect(result.tokenIds).toEqual(toyAnswer(tokens, maxTokens));
    return result.usage.cachedPromptTokens;
  };

  it('go on from the last block of an answer in the next turn', () => {
    const harness = stateful();
    const first = harness.generate(prompt(70), { maxTokens: 40 });
    const turn = [...prompt(70), ...first.tokenIds, ...prompt(9, 3)];
    expect(reused(harness, turn)).toBe(96);
  });

  it('are kept where a chunk of a prompt ends at the border of a block', () => {
    const harness = stateful();
    expect(reused(harness, prompt(150))).toBe(0);
    expect(reused(harness, [...prompt(130), ...prompt(20, 2)])).toBe(128);
  });

  it('are kept where a second prompt parted from the first, for a third', () => {
    const harness = stateful({ maxBatchTokens: 256 });
    const asked = (seed: number) => [...prompt(100), ...prompt(40, seed)];
    expect([2, 3, 4].map((seed) => reused(harness, asked(seed)))).toEqual([0, 0, 96]);
  });

  it('are not advanced by a step that was aborted', () => {
    const harness = stateful();
    harness.add(1, prompt(50), { maxTokens: 6 });
    harness.add(2, prompt(40, 2), { maxTokens: 6 });
    for (let i = 0; i < 3; i++) harness.engine.step();
    harness.device.onLayer = (layer) => {
      if (layer === 2) Atomics.store(harness.cancelFlags, 1, 1);
    };
    harness.run();
    expect(harness.results.get(1)?.finishReason).toBe('cancelled');
    expect(harness.results.get(2)?.tokenIds).toEqual(toyAnswer(prompt(40, 2), 6));
  });

  it('of paused sequences make room for those that are read', () => {
    const harness = stateful({ maxSequences: 1, stateSlots: 2, prefixCache: false });
    harness.add(1, prompt(20), { maxTokens: 100 });
    harness.run({ acknowledge: false });
    expect(harness.results.size).toBe(0);
    harness.add(2, prompt(20, 2), { maxTokens: 4 });
    harness.run({ acknowledge: false });
    expect(harness.results.get(2)?.tokenIds).toEqual(toyAnswer(prompt(20, 2), 4));
    for (let i = 0; i < 200 && harness.results.size < 2; i++) {
      harness.engine.acknowledge(1, 1);
      harness.engine.step();
    }
    expect(harness.results.get(1)?.tokenIds).toEqual(toyAnswer(prompt(20), 100));
  });
});

describe('results', () => {
  it('count tokens, times, experts and devices', () => {
    const result = new Harness({ maxBatchTokens: 16 }).generate(prompt(40), { maxTokens: 5 });
    expect(result.usage).toEqual({
      promptTokens: 40,
      completionTokens: 5,
      totalTokens: 45,
      cachedPromptTokens: 0,
    });
    // 3 prefill steps and 4 decode steps of 4 layers x 10 us on the fake device's clock.
    expect(result.timings).toMatchObject({
      queueMs: 0,
      timeToFirstTokenMs: 0.12,
      prefillMs: 0.12,
      decodeMs: 0.16,
    });
    expect(result.timings.decodeTokensPerSecond).toBeCloseTo(25_000);
    expect(result.timings.prefillTokensPerSecond).toBeCloseTo(40 / 0.00012);
    expect(result.timings.perTokenMs).toEqual({ p50: 0.04, p95: 0.04 });
    expect(result.devices).toMatchObject({ steps: 7, gpuBusyMs: 0, imbalance: 1.5 });
    expect(result.devices.unitBusyMs[0]).toBeCloseTo((7 * TOY.layers * 3) / 1000);
    const steps = [prompt(40).slice(0, 16), prompt(40).slice(16, 32), prompt(40).slice(32)];
    for (const token of result.tokenIds.slice(0, 4)) steps.push([token]);
    const activated = steps.map((tokens) =>
      [0, 1, 2, 3].map((layer) => new Set(tokens.flatMap((token) => toyExperts(token, layer))).size),
    );
    const total = activated.flat().reduce((sum, count) => sum + count, 0);
    expect(result.experts).toMatchObject({ activated: total, onNdp: total, onGpu: 0, hits: 0, misses: 0 });
  });

  it('tell waiting from computing', () => {
    const harness = new Harness({ maxSequences: 1 });
    harness.add(1, prompt(5), { maxTokens: 10 });
    harness.add(2, prompt(5), { maxTokens: 1 });
    harness.run();
    expect(harness.results.get(2)?.timings).toMatchObject({ queueMs: 0.4, prefillMs: 0.04 });
    expect(harness.results.get(2)?.timings.timeToFirstTokenMs).toBeCloseTo(0.44);
  });

  it('keep logits, log-probabilities, routing and trace where asked', () => {
    const harness = new Harness({ maxBatchTokens: 4 });
    const result = harness.generate(prompt(6), {
      maxTokens: 3,
      captureLogits: true,
      logprobs: 2,
      recordRouting: true,
      trace: true,
    });
    expect(result.logits).toMatchObject({ rows: 3, vocabSize: TOY.vocabSize });
    result.tokenIds.forEach((id, row) => {
      expect(result.logits?.values[row * TOY.vocabSize + id]).toBe(10);
      expect(result.logprobs?.[row]?.tokenId).toBe(id);
      expect(result.logprobs?.[row]?.top.length).toBe(2);
      expect(Math.exp(result.logprobs?.[row]?.logprob ?? 0)).toBeCloseTo(
        Math.exp(10) / (Math.exp(10) + 96),
        6,
      );
    });
    const tokens = [...prompt(6), ...result.tokenIds.slice(0, 2)];
    expect(result.routing).toMatchObject({
      tokens: 8,
      promptTokens: 6,
      layers: [0, 1, 2, 3],
      topK: 2,
      numExperts: 8,
    });
    expect([...(result.routing?.ids ?? [])]).toEqual(
      tokens.flatMap((token) => [0, 1, 2, 3].flatMap((layer) => toyExperts(token, layer))),
    );
    expect(result.trace?.filter((span) => span.name === 'step').length).toBe(4);
    expect(result.trace?.filter((span) => span.lane === 'unit 0').length).toBe(4);
    harness.add(2, prompt(3), { maxTokens: 1 });
    harness.run();
    expect(harness.device.tracing).toBe(false);
    expect(harness.results.get(2)).not.toHaveProperty('trace');
  });

  it('give each part the log-probabilities of the tokens that it shows, and none of a stop text', () => {
    const answer = toyAnswer(prompt(5), 20);
    const stop = toyText(answer.slice(6, 9));
    const harness = new Harness();
    const result = harness.generate(prompt(5), { maxTokens: 20, stop, logprobs: 1 });
    const parts = harness.stepParts.filter(({ text }) => text !== '');
    for (const { text, logprobs } of parts) {
      expect(toyText(logprobs?.map(({ tokenId }) => tokenId) ?? [])).toBe(text);
      expect(Buffer.from(logprobs?.flatMap(({ bytes }) => bytes) ?? []).toString()).toBe(text);
    }
    expect(parts.map(({ text }) => text).join('')).toBe(result.text);
    expect(result.logprobs?.length).toBe(9);
  });

  it('leave the end-of-text token out of the parts, and give those of tokens without text at the end', () => {
    const next = (tokens: number[]) => (tokens.length === 8 ? TOY.eosId : 5);
    const shown = (ignoreEos: boolean) => {
      const harness = new Harness({ next });
      harness.generate(prompt(5), { maxTokens: 4, logprobs: 0, ignoreEos });
      return harness.stepParts.flatMap(({ logprobs }) => logprobs?.map(({ tokenId }) => tokenId) ?? []);
    };
    expect(shown(false)).toEqual([5, 5, 5]);
    expect(shown(true)).toEqual([5, 5, 5, TOY.eosId]);
  });

  it('record the routing of a token once, though it is computed anew after preemption', () => {
    const harness = new Harness({ blocks: 3, maxContext: 96 });
    harness.add(1, prompt(30, 1), { maxTokens: 60, recordRouting: true });
    harness.add(2, prompt(30, 2), { maxTokens: 60, recordRouting: true });
    harness.run();
    expect(harness.device.steps.length).toBeGreaterThan(90);
    for (const id of [1, 2]) {
      const result = harness.results.get(id);
      const tokens = [...prompt(30, id), ...(result?.tokenIds ?? [])].slice(0, 89);
      expect(result?.tokenIds).toEqual(toyAnswer(prompt(30, id), 60));
      expect([...(result?.routing?.ids ?? [])]).toEqual(
        tokens.flatMap((token) => [0, 1, 2, 3].flatMap((layer) => toyExperts(token, layer))),
      );
    }
  });

  it('seeds are told and repeat the answer', () => {
    const first = new Harness().generate(prompt(5), { temperature: 30, maxTokens: 20 });
    const again = new Harness().generate(prompt(5), { temperature: 30, maxTokens: 20, seed: first.seed });
    const other = new Harness().generate(prompt(5), { temperature: 30, maxTokens: 20, seed: first.seed + 1 });
    expect(again.tokenIds).toEqual(first.tokenIds);
    expect(other.tokenIds).not.toEqual(first.tokenIds);
  });

  it('the model’s own sampling is the default and yields to the request', () => {
    const engine = { sampling: { temperature: 30, topK: 50 } };
    const sampled = new Harness({ engine }).generate(prompt(5), { maxTokens: 20, seed: 4 });
    expect(sampled.tokenIds).not.toEqual(toyAnswer(prompt(5), 20));
    const greedy = new Harness({ engine }).generate(prompt(5), { maxTokens: 20, temperature: 0 });
    expect(greedy.tokenIds).toEqual(toyAnswer(prompt(5), 20));
  });
});

describe('with a GPU lane', () => {
  it.each(['gpu-on-demand', 'ndp-only', 'static-split', 'balanced'])('plans every layer: %s', (policy) => {
    const harness = new Harness({ gpu: 'host', expertSlots: 12, policy, denseLayers: [1] });
    const result = harness.generate(prompt(20), { maxTokens: 10 });
    expect(result.tokenIds).toEqual(toyAnswer(prompt(20), 10));
    expect(harness.device.assignments.length).toBe(10 * 3);
    const places = harness.device.assignments.flatMap((assignment) => assignment.places);
    const onGpu = places.filter((place) => place === GPU_PLACE).length;
    expect(result.experts).toMatchObject({ activated: places.length, onGpu, onNdp: places.length - onGpu });
    expect(result.experts.hits + result.experts.misses).toBe(onGpu);
    expect(result.experts.bytesMoved).toBe((result.experts.misses + result.experts.prefetched) * 1000);
    expect(result.devices.gpuBusyMs).toBeGreaterThan(0);
    if (policy === 'gpu-on-demand') expect(onGpu).toBeGreaterThan(0);
    if (policy === 'ndp-only') expect(onGpu).toBe(0);
  });

  it('goes on after an aborted step', () => {
    const harness = new Harness({ gpu: 'host', expertSlots: 12 });
    harness.add(1, prompt(10, 1), { maxTokens: 12 });
    harness.add(2, prompt(10, 2), { maxTokens: 12 });
    harness.engine.step();
    harness.device.onLayer = (layer) => {
      if (layer === 2) Atomics.store(harness.cancelFlags, 2, 1);
    };
    harness.run();
    expect(harness.results.get(1)?.tokenIds).toEqual(toyAnswer(prompt(10, 1), 12));
    expect(harness.results.get(2)?.finishReason).toBe('cancelled');
  });
});
