import { describe, expect, it } from 'vitest';
import { Generation } from '../../../src/engine/generation.js';
import type { GenerateResult } from '../../../src/engine/result.js';
import { AbortedError } from '../../../src/errors.js';
import type { GenerateProgress } from '../../../src/options.js';

function setup(options: ConstructorParameters<typeof Generation>[1] = {}) {
  const port = { cancelled: 0, read: 0 };
  const generation = new Generation(
    {
      cancel: () => {
        port.cancelled++;
      },
      read: (parts) => {
        port.read += parts;
      },
    },
    options,
  );
  return { port, generation };
}

const result = (finishReason: GenerateResult['finishReason']) =>
  ({ text: 'ab', finishReason }) as GenerateResult;

describe('Generation', () => {
  it('hands out parts in order, then ends', async () => {
    const { generation } = setup();
    generation.push('a');
    const seen: string[] = [];
    const reading = (async () => {
      for await (const part of generation) seen.push(part);
    })();
    await Promise.resolve();
    generation.push('b');
    generation.push('');
    generation.finish(result('eos'));
    await reading;
    expect(seen).toEqual(['a', 'b']);
    expect((await generation.result).text).toBe('ab');
  });

  it('hands out what it knows of each part', async () => {
    const { generation } = setup();
    const logprobs = [{ tokenId: 7, logprob: -0.5, bytes: [97], top: [] }];
    generation.push('a', undefined, logprobs);
    generation.push('', undefined, logprobs);
    generation.push('b');
    generation.finish(result('eos'));
    const seen = [];
    for await (const part of generation.parts()) seen.push(part);
    expect(seen).toEqual([{ text: 'a', logprobs }, { text: '', logprobs }, { text: 'b' }]);
    expect(await generation[Symbol.asyncIterator]().next()).toEqual({ done: true, value: undefined });
  });

  it('parts count as read when the reader takes them', async () => {
    const { generation, port } = setup();
    const reader = generation[Symbol.asyncIterator]();
    generation.push('a');
    generation.push('b');
    expect(port.read).toBe(0);
    await reader.next();
    expect(port.read).toBe(1);
    await reader.next();
    const waiting = reader.next();
    generation.push('c');
    expect(await waiting).toEqual({ done: false, value: 'c' });
    expect(port.read).toBe(3);
  });

  it('nobody has to read: the result alone is enough', async () => {
    const { generation, port } = setup();
    for (let i = 0; i < 1000; i++) generation.push('x');
    expect(port.read).toBe(1000);
    generation.finish(result('length'));
    expect((await generation.result).finishReason).toBe('length');
  });

  it('leaving the loop cancels', async () => {
    const { generation, port } = setup();
    generation.push('a');
    generation.push('b');
    for await (const part of generation) {
      expect(part).toBe('a');
      break;
    }
    expect(port.cancelled).toBe(1);
    generation.finish(result('cancelled'));
    expect((await generation.result).finishReason).toBe('cancelled');
  });

  it('an aborted signal cancels, and rejects when the engine has let go', async () => {
    const controller = new AbortController();
    const { generation, port } = setup({ signal: controller.signal });
    const reader = generation[Symbol.asyncIterator]();
    const next = reader.next();
    controller.abort(new Error('enough'));
    expect(port.cancelled).toBe(1);
    generation.finish(result('cancelled'));
    await expect(next).rejects.toMatchObject({ name: 'AbortError', code: 'ERR_ABORTED' });
    await expect(generation.result).rejects.toBeInstanceOf(AbortedError);
    await expect(reader.next()).rejects.toMatchObject({ cause: { message: 'enough' } });
  });

  it('a signal that aborts after the end changes nothing', async () => {
    const controller = new AbortController();
    const { generation, port } = setup({ signal: controller.signal });
    generation.finish(result('eos'));
    controller.abort();
    expect(port.cancelled).toBe(0);
    expect((await generation.result).finishReason).toBe('eos');
  });

  it('an error reaches the reader after the parts before it', async () => {
    const { generation } = setup();
    generation.push('a');
    generation.fail(new Error('broken'));
    const reader = generation[Symbol.asyncIterator]();
    expect(await reader.next()).toEqual({ done: false, value: 'a' });
    await expect(reader.next()).rejects.toThrow('broken');
  });

  it('tells progress', () => {
    const seen: GenerateProgress[] = [];
    const { generation } = setup({ onProgress: (progress) => seen.push(progress) });
    generation.push('', { phase: 'prefill', doneTokens: 3, totalTokens: 9 });
    expect(seen).toEqual([{ phase: 'prefill', doneTokens: 3, totalTokens: 9 }]);
  });
});
