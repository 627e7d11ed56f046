/** The public face over a real worker and the native device: requests, streams, cancelling, disposal. */
import { afterEach, describe, expect, it } from 'vitest';
import type { GenerateProgress, LoadOptions, LoadProgress, Model, ResponseFormat } from '../../src/index.js';
import { golden, goldenFolder, goldenPrompts, nearmoe } from './built.js';

const open: Model[] = [];
async function load(name = 'qwen3_moe', options: Partial<LoadOptions> = {}): Promise<Model> {
  const model = await nearmoe.loadModel({
    model: goldenFolder(name),
    units: 2,
    pinThreads: false,
    ...options,
  });
  open.push(model);
  return model;
}
afterEach(async () => {
  for (const model of open.splice(0)) await model.dispose();
});

const first = (name: string) => {
  const [prompt] = goldenPrompts(name);
  if (prompt === undefined) throw new Error(`no golden prompt of ${name}`);
  return prompt;
};

describe('loadModel', () => {
  it('tells progress that only grows, and what was loaded', async () => {
    const seen: LoadProgress[] = [];
    const model = await load('mixtral', {
      gpu: 'host',
      vram: '1MB',
      onProgress: (progress) => seen.push(progress),
    });
    expect(new Set(seen.map((progress) => progress.phase))).toEqual(
      new Set(['open', 'weights', 'calibrate', 'ready']),
    );
    const done = seen.map((progress) => progress.doneBytes);
    expect(done).toEqual([...done].sort((a, b) => a - b));
    expect(done.at(-1)).toBe(seen.at(-1)?.totalBytes);
    expect(done.at(-1)).toBeGreaterThan(10_000);
    expect(model.info).toMatchObject({
      architecture: 'mixtral',
      units: 2,
      tpDegree: 2,
      gpu: 'host',
      kvDtype: 'f32',
    });
    expect(model.info.expertSlots).toBeGreaterThan(0);
    expect(model.info.memory.every(({ sizeBytes }) => sizeBytes > 0)).toBe(true);
  });

  it('stops where the signal says so', async () => {
    const controller = new AbortController();
    const loading = load('qwen3_moe', { signal: controller.signal, onProgress: () => controller.abort() });
    await expect(loading).rejects.toMatchObject({ name: 'AbortError' });
    await expect(load('qwen3_moe', { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
  });

  it.each([
    [{ tpDegree: 3 }, 'Expected `tpDegree` to be an integer from 1 to 2 (units), got 3'],
    [{ maxContext: 100_000 }, 'Expected `maxContext` to be an integer from 1 to 256'],
    [{ gpu: 'host', policy: 'best' }, 'Expected `policy` to be one of "balanced"'],
    [{ gpu: 'host', prefetch: 'psychic' }, 'Expected `prefetch` to be one of "off"'],
    [{ gpu: 'host', cachePolicy: 'fifo' }, 'one of'],
    [{ units: 0 }, 'Expected `units` to be an integer >= 1, got 0'],
    [{ units: 5000 }, '1024 threads'],
  ] as const)('refuses %j', async (options, message) => {
    await expect(load('qwen3_moe', options)).rejects.toMatchObject({
      code: 'ERR_OPTION',
      message: expect.stringContaining(message),
    });
  });

  it('refuses names of policies also where there is no GPU lane to use them', async () => {
    await expect(load('qwen3_moe', { policy: 'best' })).rejects.toMatchObject({ code: 'ERR_OPTION' });
  });

  it('says what is missing where there is no model', async () => {
    const loading = load('no-such-model');
    await expect(loading).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND', message: /no-such-model/ });
    await expect(loading).rejects.toBeInstanceOf(nearmoe.ModelFormatError);
  });
});

describe('generate', () => {
  it('streams the golden text and tells about it', async () => {
    const prompt = first('qwen3_moe');
    const model = await load('qwen3_moe', { maxBatchTokens: 5 });
    const progress: GenerateProgress[] = [];
    const generation = model.generate(prompt.text, {
      ...golden,
      onProgress: (event) => progress.push(event),
    });
    let text = '';
    for await (const part of generation) text += part;
    const result = await generation.result;
    expect(result.tokenIds).toEqual(prompt.greedyIds);
    expect(result.text).toBe(text);
    expect(result).toMatchObject({
      finishReason: 'length',
      usage: { promptTokens: prompt.inputIds.length, completionTokens: 24 },
    });
    expect(result.timings.timeToFirstTokenMs).toBeGreaterThan(0);
    expect(result.timings.decodeTokensPerSecond).toBeGreaterThan(0);
    expect(result.devices.unitBusyMs.every((busyMs) => busyMs > 0)).toBe(true);
    expect(result.devices.stepsMs).toBeGreaterThan(result.timings.decodeMs / 2);
    expect(progress[0]).toEqual({ phase: 'prefill', doneTokens: 5, totalTokens: prompt.inputIds.length });
    expect(progress.at(-1)?.phase).toBe('decode');
  });

  it('answers many requests at once as each alone', async () => {
    const model = await load('qwen3_moe', { maxBatchTokens: 16, maxSequences: 5 });
    const prompts = goldenPrompts('qwen3_moe');
    const requests = Array.from(
      { length: 12 },
      (_, index) => prompts[index % prompts.length] ?? first('qwen3_moe'),
    );
    const results = await Promise.all(
      requests.map(({ inputIds }) => model.generate({ inputIds }, golden).result),
    );
    results.forEach((result, index) => {
      expect(result.tokenIds).toEqual(requests[index]?.greedyIds);
    });
  });

  it.each([{ gpu: 'off' }, { gpu: 'host', vram: '40KB' }] as const)(
    'keeps the KV blocks of a prompt for the next turn, to the same logits ($gpu)',
    async (options) => {
      const [kept, anew] = await Promise.all([
        load('qwen3_moe', options),
        load('qwen3_moe', { ...options, prefixCache: false }),
      ]);
      const inputIds = Array.from({ length: 120 }, (_, at) => (at * 37) % 280);
      const request = { ...golden, captureLogits: true };
      let cached: number[] = [];
      for (const turn of [inputIds, [...inputIds, 5, 6, 7], inputIds.slice(0, 70)]) {
        const [with_, without] = await Promise.all(
          [kept, anew].map((model) => model.generate({ inputIds: turn }, request).result),
        );
        expect(with_?.logits).toEqual(without?.logits);
        expect(without?.usage.cachedPromptTokens).toBe(0);
        cached = [...cached, with_?.usage.cachedPromptTokens ?? -1];
      }
      expect(cached).toEqual([0, 96, 64]);
    },
  );

  it.each([{ gpu: 'off' }, { gpu: 'host', vram: '40KB' }] as const)(
    'holds answers to their forms, each beside others ($gpu)',
    async (options) => {
      const model = await load('qwen3_moe', { ...options, maxSequences: 6 });
      const schema = {
        type: 'object',
        properties: {
          n: { type: 'integer', minimum: 1, maximum: 500 },
          s: { type: 'string', maxLength: 12 },
        },
        required: ['n', 's'],
      };
      const formats: ResponseFormat[] = [
        { type: 'json_schema', schema },
        { type: 'regex', pattern: '[a-f]{4}-\\d{3}' },
        { type: 'json_object' },
        { type: 'text' },
      ];
      const request = { temperature: 1, maxTokens: 100, ignoreEos: true };
      const run = (responseFormat: ResponseFormat, seed: number) =>
        model.generate('Hello', { ...request, responseFormat, seed }).result;
      const together = await Promise.all(
        [1, 2, 3].flatMap((seed) => formats.map((format) => run(format, seed))),
      );
      for (const [index, result] of together.entries()) {
        const format = formats[index % formats.length] ?? { type: 'text' };
        if (format.type === 'json_schema') {
          expect(JSON.parse(result.text)).toEqual({
            n: expect.any(Number),
            s: expect.stringMatching(/^.{0,12}$/su),
          });
          expect(result.finishReason).toBe('eos');
        }
        if (format.type === 'regex') expect(result.text).toMatch(/^[a-f]{4}-\d{3}$/);
        if (format.type === 'json_object') expect(result.text[0]).toBe('{');
        if (format.type === 'text') expect(result.finishReason).toBe('length');
        const alone = await run(format, 1 + Math.floor(index / formats.length));
        expect(alone.tokenIds).toEqual(result.tokenIds);
      }
    },
  );

  it('refuses forms that it cannot hold answers to', async () => {
    const model = await load();
    expect(() => model.generate('x', { responseFormat: { type: 'xml' } as never })).toThrow(
      nearmoe.OptionError,
    );
    const refused = model.generate('x', {
      responseFormat: { type: 'json_schema', schema: { type: 'array', uniqueItems: true } },
    });
    await expect(refused.result).rejects.toMatchObject({
      code: 'ERR_OPTION',
      option: 'responseFormat.schema.uniqueItems',
    });
  });

  it('gives the same text for the same seed, with logits and routing where asked', async () => {
    const model = await load();
    const prompt = first('qwen3_moe');
    const options = { temperature: 1.5, topP: 0.95, seed: 11, maxTokens: 16, ignoreEos: true } as const;
    const one = await model.generate({ inputIds: prompt.inputIds }, { ...options, captureLogits: true })
      .result;
    const two = await model.generate({ inputIds: prompt.inputIds }, { ...options, recordRouting: true })
      .result;
    expect(two.tokenIds).toEqual(one.tokenIds);
    expect(one.logits?.values.length).toBe(16 * 291);
    expect(two.routing).toMatchObject({ tokens: prompt.inputIds.length + 15, topK: 3, layers: [0, 2] });
  });

  it.each([
    { gpu: 'off', units: 3 },
    { gpu: 'host', units: 2 },
  ] as const)('samples from candidates what it samples from whole rows ($gpu)', async (device) => {
    const model = await load('qwen3_moe', device);
    const { inputIds } = first('qwen3_moe');
    const settings = [
      { temperature: 0 },
      { temperature: 0.7, topK: 20, topP: 0.8 },
      { temperature: 0.05, topP: 0.9 },
      { temperature: 0.05, minP: 0.1 },
      { temperature: 1 },
    ];
    // Asking for log-probabilities makes the engine read the rows.
    const tokens = async (extra: { logprobs?: number }) =>
      (
        await Promise.all(
          settings.map(
            (sampling) =>
              model.generate({ inputIds }, { ...sampling, ...extra, seed: 3, maxTokens: 20, ignoreEos: true })
                .result,
          ),
        )
      ).map(({ tokenIds }) => tokenIds);
    expect(await tokens({})).toEqual(await tokens({ logprobs: 0 }));
  });

  it('traces the lanes of its steps', async () => {
    const model = await load('qwen3_moe', { gpu: 'host', vram: '40KB', policy: 'gpu-on-demand' });
    const result = await model.generate('Hello', { ...golden, trace: true }).result;
    const lanes = new Set(result.trace?.map((span) => span.lane));
    for (const lane of ['engine', 'gpu', 'transfer']) expect(lanes).toContain(lane);
    expect([...lanes].every((lane) => /^(engine|gpu|transfer|unit [01])$/.test(lane))).toBe(true);
    expect(result.trace?.every((span) => span.endUs >= span.startUs)).toBe(true);
    expect(result.experts.bytesMoved).toBe(
      (result.experts.misses + result.experts.prefetched) * model.info.expertBytes,
    );
    const plan = await model.plan();
    expect(plan.residents.length).toBe(Math.min(plan.expertSlots, plan.residents.length));
    expect(plan.residents.length).toBeGreaterThan(0);
  });

  it('tells what it did so far, also while it computes', async () => {
    const model = await load('mixtral');
    const before = await model.stats();
    const running = model.generate(first('mixtral').text, { ...golden, maxTokens: 12 });
    const during = await model.stats({ timeline: true });
    const { usage } = await running.result;
    const after = await model.stats({ timeline: true });
    expect(during.requests.running + during.requests.waiting).toBe(1);
    expect(after.requests).toEqual({ running: 0, waiting: 0 });
    expect(after.total.generatedTokens - before.total.generatedTokens).toBe(usage.completionTokens);
    const tokens = after.expertTokens.reduce(
      (sum, count, at) => sum + count - (before.expertTokens[at] ?? 0),
      0,
    );
    const { moeLayers, numExpertsPerTok } = model.info;
    const computed = usage.totalTokens - 1 - usage.cachedPromptTokens;
    expect(tokens).toBe(computed * moeLayers * numExpertsPerTok);
    expect(after.timeline.length).toBeGreaterThan(0);
  });

  it('chats by the template', async () => {
    const model = await load();
    const result = await model.chat([{ role: 'user', content: 'Hi' }], { maxTokens: 5, ignoreEos: true })
      .result;
    expect(result.usage.completionTokens).toBe(5);
    expect(result.usage.promptTokens).toBeGreaterThan(2);
  });

  it('refuses bad prompts with typed errors and lives on', async () => {
    const model = await load('qwen3_moe', { maxContext: 64 });
    const refusal = (ids: number[]) => model.generate({ inputIds: ids }).result;
    await expect(refusal([])).rejects.toBeInstanceOf(nearmoe.PromptError);
    await expect(refusal([1, 291])).rejects.toMatchObject({
      code: 'ERR_PROMPT',
      message: /0 to 290, got 291/,
    });
    await expect(refusal(new Array(64).fill(1))).rejects.toMatchObject({ message: /at most 63 tokens/ });
    await expect(model.generate('').result).rejects.toMatchObject({ code: 'ERR_PROMPT' });
    await expect(model.chat([{ role: 'user', content: 'x'.repeat(500) }]).result).rejects.toMatchObject({
      code: 'ERR_PROMPT',
    });
    expect(() => model.generate('x', { maxTokens: 0 })).toThrow(nearmoe.OptionError);
    const prompt = first('qwen3_moe');
    expect((await model.generate({ inputIds: prompt.inputIds }, golden).result).tokenIds).toEqual(
      prompt.greedyIds,
    );
  });
});

describe('ending early', () => {
  it('leaving the loop ends the request', async () => {
    const model = await load();
    const generation = model.generate('Hello', { ...golden, maxTokens: 200 });
    for await (const _ of generation) break;
    const result = await generation.result;
    expect(result.finishReason).toBe('cancelled');
    expect(result.usage.completionTokens).toBeLessThan(200);
  });

  it('a signal rejects iteration and result, before and during generation', async () => {
    const model = await load();
    const before = model.generate('Hello', { signal: AbortSignal.abort('no') });
    await expect(before.result).rejects.toMatchObject({ name: 'AbortError', cause: 'no' });
    const controller = new AbortController();
    const generation = model.generate('Hello', { ...golden, maxTokens: 200, signal: controller.signal });
    const reading = (async () => {
      for await (const _ of generation) controller.abort();
    })();
    await expect(reading).rejects.toMatchObject({ name: 'AbortError' });
    await expect(generation.result).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('a reader that stops reading holds up only itself', async () => {
    const model = await load();
    const slow = model.generate('Hello', { ...golden, maxTokens: 220 });
    const reader = slow[Symbol.asyncIterator]();
    await reader.next();
    const quick = await model.generate('Hello', { ...golden, maxTokens: 220 }).result;
    expect(quick.usage.completionTokens).toBe(220);
    let text = quick.text.slice(0, 0);
    for (let part = await reader.next(); !part.done; part = await reader.next()) text += part.value;
    expect(quick.text.endsWith(text)).toBe(true);
    expect((await slow.result).text).toBe(quick.text);
  });

  it('dispose during generation rejects what runs and waits for nothing else', async () => {
    const model = await load();
    const running = model.generate('Hello', { ...golden, maxTokens: 240 });
    const waiting = model.generate('Hello', golden);
    const reader = running[Symbol.asyncIterator]();
    await reader.next();
    const failures = Promise.allSettled([running.result, waiting.result]);
    await model.dispose();
    for (const outcome of await failures) {
      if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(nearmoe.DisposedError);
    }
    expect((await failures)[0]?.status).toBe('rejected');
    await expect(model.generate('x').result).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    await expect(model.plan()).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    await model.dispose();
  });

  it('disposes at the end of an await using block', async () => {
    const model = await load();
    await model[Symbol.asyncDispose]();
    await expect(model.generate('x').result).rejects.toBeInstanceOf(nearmoe.DisposedError);
  });
});

describe('two models at once', () => {
  it('answer independently, one of them outliving the other', async () => {
    const [one, two] = await Promise.all([load('mixtral'), load('olmoe', { gpu: 'host' })]);
    const run = (model: Model, name: string) =>
      Promise.all(
        goldenPrompts(name).map(async (prompt) => {
          const result = await model.generate({ inputIds: prompt.inputIds }, golden).result;
          expect(result.tokenIds).toEqual(prompt.greedyIds);
        }),
      );
    await Promise.all([run(one, 'mixtral'), run(two, 'olmoe')]);
    await one.dispose();
    await run(two, 'olmoe');
  });
});
