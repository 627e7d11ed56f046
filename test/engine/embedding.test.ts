/** The parts of the public face that services build on: sessions, streams, isolation, diagnostics. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import type { EngineEvent, LoadOptions, Model, RequestEvent } from '../../src/index.js';
import { golden, goldenFolder, goldenPrompts, nearmoe } from './built.js';

const open: Model[] = [];
async function load(options: Partial<LoadOptions> = {}): Promise<Model> {
  const model = await nearmoe.loadModel({
    model: goldenFolder('qwen3_moe'),
    units: 2,
    pinThreads: false,
    ...options,
  });
  open.push(model);
  return model;
}
const listeners: (() => void)[] = [];
function listen<Event>(name: string): Event[] {
  const events: Event[] = [];
  const listener = (event: unknown) => events.push(event as Event);
  subscribe(name, listener);
  listeners.push(() => unsubscribe(name, listener));
  return events;
}
afterEach(async () => {
  for (const stop of listeners.splice(0)) stop();
  for (const model of open.splice(0)) await model.dispose();
});

const prompt = () => goldenPrompts('qwen3_moe')[0] ?? { text: '', inputIds: [], greedyIds: [] };

describe('chat sessions', () => {
  it('go on from what was said, and pay for the new tokens only', async () => {
    const model = await load();
    const session = model.createChatSession({ system: 'Be brief.', ...golden, maxTokens: 40 });
    const first = await session.send('Hello there, how are you today?').result;
    expect(session.messages.map(({ role }) => role)).toEqual(['system', 'user', 'assistant']);
    const second = await session.send('And now?').result;
    expect(second.usage.cachedPromptTokens).toBeGreaterThanOrEqual(32);
    expect(session.messages.at(2)).toEqual({ role: 'assistant', content: first.text });
    const anew = await model.chat(session.messages.slice(0, -1), { ...golden, maxTokens: 40 }).result;
    expect(anew.tokenIds).toEqual(second.tokenIds);
  });

  it('keep their history when an answer is cancelled, and take one question at a time', async () => {
    const session = (await load()).createChatSession({ ...golden, maxTokens: 200 });
    const running = session.send('Hello');
    expect(() => session.send('again')).toThrow(nearmoe.OptionError);
    session[Symbol.dispose]();
    expect((await running.result).finishReason).toBe('cancelled');
    expect(session.messages).toEqual([]);
    const failing = session.send('x', { signal: AbortSignal.abort() });
    await expect(failing.result).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await session.send('Hello', { maxTokens: 3 }).result;
    expect(session.messages.length).toBe(2);
  });
});

describe('streams', () => {
  it('give the text as a Web stream', async () => {
    const generation = (await load()).generate(prompt().text, golden);
    let text = '';
    for await (const part of generation.toReadableStream() as unknown as AsyncIterable<string>) text += part;
    expect(text).toBe((await generation.result).text);
  });

  it('a stream that nobody reads further does not fill memory, and cancelling it ends the request', async () => {
    const model = await load();
    const generation = model.generate('Hello', { ...golden, maxTokens: 240 });
    const reader = generation.toReadableStream().getReader();
    await reader.read();
    // Others finish meanwhile, with more tokens than the slow reader's sequence may be ahead.
    const other = await model.generate('Hello', { ...golden, maxTokens: 240 }).result;
    expect(other.usage.completionTokens).toBe(240);
    await reader.cancel();
    const result = await generation.result;
    expect(result.finishReason).toBe('cancelled');
    expect(result.usage.completionTokens).toBeLessThan(100);
  });

  it('a using block ends the request with it', async () => {
    const generation = (await load()).generate('Hello', { ...golden, maxTokens: 240 });
    generation[Symbol.dispose]();
    expect((await generation.result).finishReason).toBe('cancelled');
  });
});

describe('inspect', () => {
  it('tells what the model weighs', async () => {
    const facts = await (await load()).inspect();
    expect(facts).toMatchObject({ architecture: 'qwen3_moe', numExpertsPerTok: 3 });
    expect(facts.parameters.total).toBeGreaterThan(facts.parameters.active);
  });
});

describe('an engine in a process of its own', () => {
  it('computes the same, streams, cancels and stops loading', async () => {
    const model = await load({ isolate: 'process' });
    const { text, greedyIds } = prompt();
    const generation = model.generate(text, golden);
    let read = '';
    for await (const part of generation) read += part;
    expect(await generation.result).toMatchObject({ tokenIds: greedyIds, text: read });
    const controller = new AbortController();
    const aborted = model.generate('Hello', { ...golden, maxTokens: 240, signal: controller.signal });
    for await (const _ of { [Symbol.asyncIterator]: () => aborted[Symbol.asyncIterator]() }) {
      controller.abort();
      break;
    }
    await expect(aborted.result).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(load({ isolate: 'process', model: 'none' })).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
    });
    await expect(load({ isolate: 'process', signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
  });

  it.each(['SIGSEGV', 'SIGABRT', 'SIGKILL'] as const)('survives a crash by %s', async (signal) => {
    const starts = listen<EngineEvent>('nearmoe.engine.start');
    const ends = listen<EngineEvent>('nearmoe.engine.end');
    const model = await load({ isolate: 'process' });
    const running = [1, 2].map(() => model.generate('Hello', { ...golden, maxTokens: 240 }));
    await running[0]?.[Symbol.asyncIterator]().next();
    const pid = starts[0]?.pid ?? 0;
    expect(pid).not.toBe(process.pid);
    process.kill(pid, signal);
    for (const { result } of running) {
      await expect(result).rejects.toBeInstanceOf(nearmoe.EngineCrashedError);
      await expect(result).rejects.toMatchObject({ code: 'ERR_ENGINE_CRASHED', message: new RegExp(signal) });
    }
    expect(ends[0]?.error).toBeInstanceOf(nearmoe.EngineCrashedError);
    const { inputIds, greedyIds } = prompt();
    expect((await model.generate({ inputIds }, golden).result).tokenIds).toEqual(greedyIds);
    expect(starts.length).toBe(2);
    expect(starts[1]?.pid).not.toBe(pid);
  });

  it('does not try again for ever', async () => {
    const starts = listen<EngineEvent>('nearmoe.engine.start');
    const loading = load({ isolate: 'process' });
    while (starts.length === 0) await sleep(1);
    process.kill(starts[0]?.pid ?? 0, 'SIGKILL');
    await expect(loading).rejects.toMatchObject({ code: 'ERR_ENGINE_CRASHED' });
    expect(starts.length).toBe(1);
  });

  it('ends with its model, and refuses what comes later', async () => {
    const starts = listen<EngineEvent>('nearmoe.engine.start');
    const model = await load({ isolate: 'process' });
    const running = model.generate('Hello', { ...golden, maxTokens: 240 });
    await model.dispose();
    await expect(running.result).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    expect(() => process.kill(starts[0]?.pid ?? 0, 0)).toThrow('ESRCH');
  });
});

describe('diagnostics', () => {
  it('tell of requests and engines', async () => {
    const events = Object.fromEntries(
      ['request.start', 'request.end', 'request.error'].map((name) => [
        name,
        listen<RequestEvent>(`nearmoe.${name}`),
      ]),
    );
    const engines = ['start', 'ready', 'end'].map((name) => listen<EngineEvent>(`nearmoe.engine.${name}`));
    const model = await load();
    const result = await model.generate('Hello', golden).result;
    await expect(
      model.chat([{ role: 'user', content: 'x' }], { signal: AbortSignal.abort() }).result,
    ).rejects.toThrow();
    await sleep(0);
    expect(events['request.start']?.map(({ operation }) => operation)).toEqual(['text_completion', 'chat']);
    expect(events['request.end']).toMatchObject([
      { result: { text: result.text }, options: { maxTokens: 24 } },
    ]);
    expect(events['request.end']?.[0]?.request).toBe(events['request.start']?.[0]?.request);
    expect(events['request.error']).toMatchObject([{ operation: 'chat', error: { code: 'ERR_ABORTED' } }]);
    await model.dispose();
    expect(engines.map((list) => list.map(({ pid }) => pid))).toEqual([
      [process.pid],
      [process.pid],
      [process.pid],
    ]);
  });
});
