/**
 * Whatever is sent, the server answers with what the client did wrong, or what was asked for, or 503: never with an
 * error of its own, and it lives on. Bodies near the schema, bodies of any JSON, bytes, headers and raw sockets.
 */
import net from 'node:net';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startServer } from './built-server.js';

let running: Awaited<ReturnType<typeof startServer>>;
const errors: unknown[] = [];
beforeAll(async () => {
  running = await startServer({}, { onError: (error) => errors.push(error), maxBodyBytes: 65_536 });
});
afterAll(() => running.stop());

/** NEARMOE_FUZZ_EFFORT multiplies the cases of each test, and their time. */
const EFFORT = Number(process.env.NEARMOE_FUZZ_EFFORT ?? 1);
vi.setConfig({ testTimeout: 30_000 * EFFORT });

const ROUTES = ['/v1/chat/completions', '/v1/completions'] as const;

async function send(path: string, body: string | Uint8Array, headers: Record<string, string> = {}) {
  const response = await fetch(running.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: body as BodyInit,
  });
  const text = await response.text();
  const isDeclared = response.status === 503 && response.headers.has('retry-after');
  if (response.status >= 500 && !isDeclared) throw new Error(`${response.status}: ${text}`);
  if (response.status >= 400) {
    expect(JSON.parse(text).error).toMatchObject({ message: expect.any(String), type: expect.any(String) });
  }
  return response.status;
}

/** Values that a field may have by its schema, and others. */
const oddValue = fc.oneof(
  fc.constantFrom<unknown>(null, true, false, 0, -1, 1, 2 ** 53, 1e308, 0.5, '', 'x', [], {}, [[]], [null]),
  fc.constantFrom<unknown>('__proto__', '\ud800', '\u0000', 'constructor', '9'.repeat(400)),
  fc.integer(),
  fc.double(),
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.jsonValue({ maxDepth: 3 }),
);
const FIELDS: Record<string, fc.Arbitrary<unknown>> = {
  stream: fc.boolean(),
  stream_options: fc.constant({ include_usage: true }),
  n: fc.integer({ min: 1, max: 3 }),
  stop: fc.oneof(fc.string(), fc.array(fc.string(), { maxLength: 5 })),
  seed: fc.integer(),
  temperature: fc.double({ min: 0, max: 2, noNaN: true }),
  top_p: fc.double({ min: 0, max: 1, noNaN: true }),
  frequency_penalty: fc.double({ min: -2, max: 2, noNaN: true }),
  presence_penalty: fc.double({ min: -2, max: 2, noNaN: true }),
  logit_bias: fc.dictionary(fc.stringMatching(/^\d{1,4}$/), fc.integer({ min: -100, max: 100 })),
  logprobs: fc.oneof(fc.boolean(), fc.integer({ min: 0, max: 5 })),
  top_logprobs: fc.integer({ min: 0, max: 20 }),
  top_k: fc.integer({ min: 0, max: 50 }),
  min_p: fc.double({ min: 0, max: 1, noNaN: true }),
  repetition_penalty: fc.double({ min: 0.1, max: 2, noNaN: true }),
  tools: fc.constant([{ type: 'function', function: { name: 'f', parameters: { type: 'object' } } }]),
  tool_choice: fc.constantFrom('none', 'auto', 'required'),
  response_format: fc.oneof(
    fc.constantFrom({ type: 'text' }, { type: 'json_object' }),
    fc
      .jsonValue({ maxDepth: 4 })
      .map((schema) => ({ type: 'json_schema', json_schema: { name: 'x', schema } })),
    fc.string().map((pattern) => ({ type: 'regex', pattern })),
  ),
  chat_template_kwargs: fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 1 })),
  metadata: fc.dictionary(fc.string(), fc.string()),
  user: fc.string(),
};
const message = fc.oneof(
  fc.record({ role: fc.constantFrom('system', 'user', 'assistant', 'developer'), content: fc.string() }),
  fc.record({
    role: fc.constant('user'),
    content: fc.array(fc.record({ type: fc.constant('text'), text: fc.string() })),
  }),
  fc.record({ role: fc.constant('tool'), content: fc.string(), tool_call_id: fc.string() }),
  fc.record({ role: oddValue, content: oddValue }),
);
const prompt = fc.oneof(
  fc.string(),
  fc.array(fc.string(), { maxLength: 3 }),
  fc.array(fc.integer({ min: -1, max: 2100 }), { maxLength: 8 }),
  fc.array(fc.array(fc.nat(2100), { maxLength: 4 }), { maxLength: 3 }),
);

/** A body of an endpoint that is right but for the fields in `odd`; answers stay short whatever is odd. */
const nearSchema = fc
  .tuple(fc.constantFrom(...ROUTES), fc.subarray(Object.keys(FIELDS), { maxLength: 4 }))
  .chain(([path, names]) => {
    const isChat = path === ROUTES[0];
    const own: Record<string, fc.Arbitrary<unknown>> = isChat
      ? { messages: fc.array(message, { maxLength: 4 }), max_completion_tokens: fc.constantFrom(1, 2) }
      : { prompt, max_tokens: fc.constantFrom(1, 2, 3) };
    const chosen = Object.fromEntries(names.map((name) => [name, FIELDS[name] as fc.Arbitrary<unknown>]));
    const keys = [...Object.keys(FIELDS), 'messages', 'prompt', 'unheard'];
    return fc.record({
      path: fc.constant(path),
      body: fc.record({ model: fc.constant('demo'), ...own, ...chosen }),
      odd: fc.oneof(fc.constant({}), fc.dictionary(fc.constantFrom(...keys), oddValue, { maxKeys: 2 })),
    });
  });

describe('bodies', () => {
  it('near the schema', { timeout: 60_000 * EFFORT }, async () => {
    const statuses = new Map<number, number>();
    await fc.assert(
      fc.asyncProperty(nearSchema, async ({ path, body, odd }) => {
        const status = await send(path, JSON.stringify({ ...body, ...odd }));
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }),
      { numRuns: 200 * EFFORT },
    );
    // Not all are refused for one and the same reason.
    expect(statuses.get(200)).toBeGreaterThan(0);
    expect(statuses.get(400)).toBeGreaterThan(0);
  });

  it('of any JSON', async () => {
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), fc.constantFrom(...ROUTES), async (body, path) => {
        expect(await send(path, JSON.stringify(body))).toBe(400);
      }),
      { numRuns: 100 * EFFORT },
    );
  });

  it('of any bytes, and far too deep', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(...ROUTES), async (bytes, path) => {
        expect(await send(path, bytes)).toBe(400);
      }),
      { numRuns: 100 * EFFORT },
    );
    for (const path of ROUTES) {
      expect(await send(path, '['.repeat(30_000) + ']'.repeat(30_000))).toBe(400);
      expect(await send(path, `{"a":${'{"a":'.repeat(9000)}1${'}'.repeat(9001)}`)).toBe(400);
      expect(await send(path, ' '.repeat(70_000))).toBe(413);
    }
  });

  it('schemas that nest or repeat without end', async () => {
    const chat = (response_format: object) =>
      send(
        ROUTES[0],
        JSON.stringify({
          model: 'demo',
          messages: [{ role: 'user', content: 'x' }],
          max_tokens: 2,
          response_format,
        }),
      );
    let deep: object = { type: 'string' };
    for (let level = 0; level < 25; level++) deep = { type: 'array', items: deep };
    const schema = (value: object) =>
      chat({ type: 'json_schema', json_schema: { name: 'x', schema: value } });
    expect([200, 400]).toContain(await schema(deep));
    expect([200, 400]).toContain(await schema({ $ref: '#' }));
    expect([200, 400]).toContain(await schema({ $defs: { a: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' }));
    for (const pattern of ['(a{100}){100}', '((((a*)*)*)*)*', '[', '(?=a)', '(a|b|ab)*c'])
      expect([200, 400]).toContain(await chat({ type: 'regex', pattern }));
  });
});

describe('headers', () => {
  it('of any text that a client can send', async () => {
    const value = fc.stringMatching(/^[\x21-\x7e]{1,40}$/);
    const name = fc.constantFrom(
      'authorization',
      'content-type',
      'content-encoding',
      'accept',
      'x-request-id',
      'cookie',
      'if-none-match',
      'x-forwarded-for',
    );
    await fc.assert(
      fc.asyncProperty(fc.dictionary(name, value, { maxKeys: 4 }), async (headers) => {
        await send(ROUTES[0], '{}', headers);
      }),
      { numRuns: 100 * EFFORT },
    );
  });

  it('and requests of raw sockets, whole, broken or left open', {
    timeout: 60_000 * EFFORT,
  }, async () => {
    const { port } = new URL(running.url);
    const line = fc.oneof(
      fc.constantFrom(
        'POST /v1/chat/completions HTTP/1.1',
        'GET / HTTP/1.1',
        'GET //..//%2e%2e/%ff HTTP/1.1',
        'GET http://[::1/ HTTP/1.1',
        'OPTIONS * HTTP/1.1',
        'Host: localhost',
        'Host: ',
        'Host: a b',
        'Content-Length: 10',
        'Content-Length: -1',
        'Transfer-Encoding: chunked',
        'Content-Type: application/json',
        'Expect: 100-continue',
        'Connection: upgrade',
        'Upgrade: websocket',
        '',
        '{}',
      ),
      fc.string({ unit: 'binary-ascii', maxLength: 40 }),
    );
    const exchange = (text: string) =>
      new Promise<string>((resolve) => {
        const socket = net.connect(Number(port), '127.0.0.1');
        let got = '';
        socket.on('data', (data) => (got += data));
        socket.on('error', () => resolve(got));
        socket.on('close', () => resolve(got));
        socket.write(text);
        setTimeout(() => socket.destroy(), 15);
      });
    await fc.assert(
      fc.asyncProperty(fc.array(line, { maxLength: 8 }), async (lines) => {
        const got = await exchange(`${lines.join('\r\n')}\r\n\r\n`);
        expect(got).not.toMatch(/^HTTP\/1\.1 5(?!03)/m);
      }),
      { numRuns: 150 * EFFORT },
    );
  });
});

it('afterwards it serves as before, and had no error of its own', async () => {
  expect(errors).toEqual([]);
  const answer = await running.client.completions.create({ model: 'demo', prompt: 'Once', max_tokens: 2 });
  expect(answer.usage?.completion_tokens).toBe(2);
  const { requests } = await running.model.stats();
  expect(requests).toEqual({ running: 0, waiting: 0 });
});
