/** What the server refuses, how long it waits and how it ends, over a model whose every part the test sends itself. */
import { describe, expect, it } from 'vitest';
import { DeviceError, EngineCrashedError } from '../../src/errors.js';
import { scriptedServer } from './scripted-model.js';

const bodyOf = async (response: Response) => (await response.json()) as Record<string, never>;

describe('places', () => {
  it('beyond the queue a request is refused with 503 and told when to come back', async () => {
    const { model, chat } = scriptedServer({ maxConcurrent: 1, maxQueued: 1 });
    const first = chat();
    const running = await model.started(0);
    const second = chat();
    await new Promise((resolve) => setTimeout(resolve, 5));
    const third = await chat();
    expect(third.status).toBe(503);
    expect(Number(third.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await bodyOf(third)).toMatchObject({ error: { type: 'server_error', code: 'queue_full' } });
    running.finish();
    expect((await first).status).toBe(200);
    (await model.started(1)).finish();
    expect((await second).status).toBe(200);
  });

  it('one client cannot take them all: 429', async () => {
    const { model, chat } = scriptedServer({ apiKeys: ['a', 'b'], maxPerClient: 1 });
    const as = (key: string) =>
      chat({}, { headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` } });
    const first = as('a');
    const running = await model.started(0);
    const second = await as('a');
    expect([second.status, second.headers.get('retry-after')]).toEqual([429, '1']);
    expect(await bodyOf(second)).toMatchObject({ error: { type: 'rate_limit_error' } });
    const other = as('b');
    (await model.started(1)).finish();
    running.finish();
    expect([(await first).status, (await other).status]).toEqual([200, 200]);
    const again = as('a');
    (await model.started(2)).finish();
    expect((await again).status).toBe(200);
  });

  it('clients take turns in the queue', async () => {
    const { model, chat } = scriptedServer({ apiKeys: ['a', 'b'], maxConcurrent: 1 });
    const as = (key: string, content: string) =>
      chat(
        { messages: [{ role: 'user', content }] },
        { headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` } },
      );
    const all = [as('a', 'a0')];
    await model.started(0);
    for (const name of ['a1', 'a2', 'a3']) all.push(as('a', name));
    await new Promise((resolve) => setTimeout(resolve, 5));
    all.push(as('b', 'b0'));
    await new Promise((resolve) => setTimeout(resolve, 5));
    for (let index = 0; index < 5; index++) (await model.started(index)).finish();
    await Promise.all(all);
    const order = model.running.map(({ prompt }) => (prompt as { content: string }[])[0]?.content);
    expect(order).toEqual(['a0', 'a1', 'b0', 'a2', 'a3']);
  });

  it('waiting has an end: 503, and the next one moves up', async () => {
    const { model, chat } = scriptedServer({ maxConcurrent: 1, queueTimeoutMs: 20 });
    const first = chat();
    const running = await model.started(0);
    const second = await chat();
    expect([second.status, (await bodyOf(second)) as unknown]).toEqual([
      503,
      { error: expect.objectContaining({ code: 'queue_timeout' }) },
    ]);
    running.finish();
    expect((await first).status).toBe(200);
  });

  it('several answers take several places', async () => {
    const { model, chat } = scriptedServer({ maxConcurrent: 3 });
    const first = chat({ n: 2 });
    await model.started(1);
    const second = chat({ n: 2 });
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(model.running.length).toBe(2);
    for (const running of model.running) running.finish();
    expect((await bodyOf(await first)).choices).toHaveLength(2);
    await model.started(3);
    for (const running of model.running.slice(2)) running.finish();
    expect((await second).status).toBe(200);
  });
});

describe('time', () => {
  it('a request that takes too long ends with 503, in a stream with an error event', async () => {
    const { model, chat } = scriptedServer({ requestTimeoutMs: 20 });
    const whole = await chat();
    expect([whole.status, model.running[0]?.cancelled]).toEqual([503, true]);
    expect(await bodyOf(whole)).toMatchObject({ error: { code: 'request_timeout' } });
    const streamed = chat({ stream: true });
    (await model.started(1)).push('so far');
    const text = await (await streamed).text();
    expect(text).toContain('so far');
    expect(text).toMatch(/data: \{"error":\{[^}]*"code":"request_timeout"\}\}\n\n$/);
    expect(text).not.toContain('[DONE]');
  });

  it('a stream with nothing to say sends comments that tell how far the prompt is', async () => {
    const { model, chat } = scriptedServer({ heartbeatMs: 10 });
    const pending = chat({ stream: true });
    const running = await model.started(0);
    running.prefill(128, 512);
    const reader = (await pending).body?.pipeThrough(new TextDecoderStream()).getReader();
    expect(await reader?.read()).toMatchObject({ value: ': prefill 128/512\n\n' });
    running.prefill(256, 512);
    expect(await reader?.read()).toMatchObject({ value: ': prefill 256/512\n\n' });
    running.push('text');
    running.finish();
    let rest = '';
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) rest += part.value;
    expect(rest).toMatch(/"content":"text".*"finish_reason":"stop".*data: \[DONE\]\n\n$/s);
  });

  it('an error before the first text has a status, later it is an event', async () => {
    const { model, chat } = scriptedServer({ onError: () => undefined });
    const early = chat({ stream: true });
    (await model.started(0)).fail(new EngineCrashedError('gone'));
    expect((await early).status).toBe(503);
    const late = chat({ stream: true });
    const running = await model.started(1);
    running.push('x');
    const response = await late;
    running.fail(new EngineCrashedError('gone'));
    expect([response.status, await response.text()]).toEqual([
      200,
      expect.stringContaining('"code":"engine_unavailable"'),
    ]);
  });

  it('an error of its own is told to the operator, streamed or not', async () => {
    const told: unknown[] = [];
    const { model, chat } = scriptedServer({ onError: (error) => told.push(error) });
    const broken = new DeviceError('a unit fell out');
    const whole = chat();
    (await model.started(0)).fail(broken);
    expect((await whole).status).toBe(500);
    const streamed = chat({ stream: true });
    const running = await model.started(1);
    running.push('x');
    const response = await streamed;
    running.fail(broken);
    await response.text();
    expect(told.map((error) => (error as Error).message)).toEqual(['a unit fell out', 'a unit fell out']);
  });
});

describe('a client that leaves', () => {
  it('frees its place, whether it waits, computes or reads', async () => {
    const { model, chat } = scriptedServer({ maxConcurrent: 1 });
    const leave = new AbortController();
    const first = chat({}, { signal: leave.signal });
    const running = await model.started(0);
    const impatient = new AbortController();
    const second = chat({}, { signal: impatient.signal });
    const third = chat({ stream: true });
    await new Promise((resolve) => setTimeout(resolve, 5));
    impatient.abort();
    await second.catch(() => undefined);
    expect(model.running.length).toBe(1);
    leave.abort();
    await first.catch(() => undefined);
    expect(running.cancelled).toBe(true);
    const streaming = await model.started(1);
    streaming.push('x');
    await (await third).body?.cancel();
    expect(streaming.cancelled).toBe(true);
    const fourth = chat();
    (await model.started(2)).finish();
    expect((await fourth).status).toBe(200);
  });
});

describe('shutdown', () => {
  it('refuses new work, lets the rest come to its end', async () => {
    const { model, server, chat, ask } = scriptedServer({ maxConcurrent: 1 });
    const first = chat();
    const running = await model.started(0);
    const waiting = chat();
    await new Promise((resolve) => setTimeout(resolve, 5));
    const closed = server.close();
    expect((await chat()).status).toBe(503);
    expect((await ask('/ready')).status).toBe(503);
    expect((await ask('/health')).status).toBe(200);
    running.finish();
    (await model.started(1)).finish();
    expect([(await first).status, (await waiting).status]).toEqual([200, 200]);
    await closed;
  });

  it('does not wait for ever', async () => {
    const { model, server, chat } = scriptedServer({ drainTimeoutMs: 10 });
    const stuck = chat();
    const running = await model.started(0);
    await server.close();
    expect(running.cancelled).toBe(true);
    expect(await bodyOf(await stuck)).toMatchObject({ error: { code: 'shutting_down' } });
  });
});

describe('what is asked', () => {
  it('must be JSON of limited size and depth', async () => {
    const { post } = scriptedServer({ maxBodyBytes: 4096 });
    const path = '/v1/chat/completions';
    const status = async (body: string, headers = { 'content-type': 'application/json' }) =>
      (await post(path, body, { headers })).status;
    expect(await status('{')).toBe(400);
    expect(await status('null')).toBe(400);
    expect(await status(`"${'x'.repeat(5000)}"`)).toBe(413);
    expect(await status(`${'['.repeat(100)}${']'.repeat(100)}`)).toBe(400);
    expect(await status('{}', { 'content-type': 'text/plain' })).toBe(415);
    const binary = await post(path, '', { body: Uint8Array.of(0x22, 0xff, 0x22) });
    expect(await bodyOf(binary)).toMatchObject({ error: { code: 'invalid_json' } });
  });

  it('must be for a name of this machine, where no key is asked for', async () => {
    const hosts = async (host: string, options = {}) =>
      (await scriptedServer(options).ask('/v1/models', { headers: { host } })).status;
    expect(await hosts('localhost:8080')).toBe(200);
    expect(await hosts('[::1]:8080')).toBe(200);
    expect(await hosts('evil.example:8080')).toBe(403);
    expect(await hosts('evil.example', { allowedHosts: ['evil.example'] })).toBe(200);
    expect(await hosts('evil.example', { apiKeys: ['k'] })).toBe(401);
  });

  it('reaches the model as options', async () => {
    const { model, post } = scriptedServer();
    const asked = post('/v1/completions', {
      model: 'm',
      prompt: [1, 2],
      seed: -1,
      top_p: 0,
      temperature: 1,
      top_k: 5,
      min_p: 0.1,
      repetition_penalty: 1.1,
      ignore_eos: true,
      logprobs: 0,
      user: 'me',
    });
    const { options, prompt, finish } = await model.started(0);
    expect(prompt).toEqual({ inputIds: [1, 2] });
    expect(options).toMatchObject({
      maxTokens: 16,
      temperature: 0,
      topP: undefined,
      seed: Number.MAX_SAFE_INTEGER,
      topK: 5,
      minP: 0.1,
      repetitionPenalty: 1.1,
      ignoreEos: true,
      logprobs: 0,
    });
    finish('length');
    expect((await bodyOf(await asked)).choices).toMatchObject([{ finish_reason: 'length' }]);
  });
});
