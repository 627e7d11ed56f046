/** The official `openai` client against the built server and the demo model: what it asks, what it gets, its errors. */
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startServer } from './built-server.js';

let running: Awaited<ReturnType<typeof startServer>>;
let client: OpenAI;
beforeAll(async () => {
  running = await startServer({}, { apiKeys: ['first-key', 'second-key'] });
  client = new OpenAI({ baseURL: `${running.url}/v1`, apiKey: 'second-key', maxRetries: 0 });
});
afterAll(() => running.stop());

const messages = [{ role: 'user' as const, content: 'Tell me a story about a fox.' }];
const greedy = { model: 'demo', temperature: 0, max_tokens: 24 };

describe('chat completions', () => {
  it('answer by the model’s own template, as model.chat does', async () => {
    const answer = await client.chat.completions.create({ ...greedy, messages });
    const alone = await running.model.chat(messages, { temperature: 0, maxTokens: 24 }).result;
    expect(answer.choices).toEqual([
      {
        index: 0,
        message: { role: 'assistant', content: alone.text, refusal: null },
        logprobs: null,
        finish_reason: 'length',
      },
    ]);
    expect(alone.text).toMatch(/fox/);
    expect(answer).toMatchObject({ object: 'chat.completion', model: 'demo' });
    expect(answer.usage).toMatchObject({
      prompt_tokens: alone.usage.promptTokens,
      completion_tokens: 24,
      total_tokens: alone.usage.promptTokens + 24,
    });
    const { timing } = answer.usage as unknown as { timing: Record<string, number> };
    expect(timing.total_ms).toBeGreaterThan(timing.time_to_first_token_ms as number);
    expect(timing.decode_tokens_per_second).toBeGreaterThan(0);
  });

  it('stream the same text, then the usage', async () => {
    const whole = await client.chat.completions.create({ ...greedy, messages });
    const stream = await client.chat.completions.create({
      ...greedy,
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const deltas = chunks.flatMap(({ choices }) => choices);
    expect(deltas[0]?.delta.role).toBe('assistant');
    expect(deltas.map(({ delta }) => delta.content ?? '').join('')).toBe(whole.choices[0]?.message.content);
    expect(deltas.map(({ finish_reason }) => finish_reason).filter(Boolean)).toEqual(['length']);
    expect(deltas.length).toBeGreaterThan(10);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 24 } });
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
  });

  it('are understood by the client’s own stream runner', async () => {
    const runner = client.chat.completions.stream({ ...greedy, messages, logprobs: true });
    const final = await runner.finalChatCompletion();
    const whole = await client.chat.completions.create({ ...greedy, messages, logprobs: true });
    expect(final.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
    expect(final.choices[0]?.logprobs?.content).toEqual(whole.choices[0]?.logprobs?.content);
  });

  it('give several answers, each with a seed of its own, the same ones again', async () => {
    const ask = () =>
      client.chat.completions.create({ ...greedy, temperature: 1.2, messages, n: 3, seed: -5 });
    const texts = (answer: OpenAI.ChatCompletion) => answer.choices.map(({ message }) => message.content);
    const first = await ask();
    expect(first.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(new Set(texts(first)).size).toBe(3);
    expect(texts(await ask())).toEqual(texts(first));
    expect(first.usage?.completion_tokens).toBe(72);
  });

  it('give log-probabilities that add up to the text', async () => {
    const answer = await client.chat.completions.create({
      ...greedy,
      messages,
      logprobs: true,
      top_logprobs: 3,
    });
    const content = answer.choices[0]?.logprobs?.content ?? [];
    expect(content.map(({ token }) => token).join('')).toBe(answer.choices[0]?.message.content);
    for (const { token, logprob, bytes, top_logprobs } of content) {
      expect(Buffer.from(bytes ?? []).toString()).toBe(token);
      expect(top_logprobs.length).toBe(3);
      // Greedy: the chosen token is the likeliest.
      expect(top_logprobs[0]).toEqual({ token, logprob, bytes });
      const mass = top_logprobs.reduce((sum, top) => sum + Math.exp(top.logprob), 0);
      expect(mass).toBeLessThanOrEqual(1 + 1e-6);
    }
  });

  it('end at a stop text, which they leave out', async () => {
    const whole = await client.chat.completions.create({ ...greedy, messages });
    const text = whole.choices[0]?.message.content ?? '';
    const stop = text.slice(20, 26);
    const answer = await client.chat.completions.create({ ...greedy, messages, stop: [stop, 'never'] });
    expect(answer.choices[0]).toMatchObject({
      finish_reason: 'stop',
      message: { content: text.slice(0, text.indexOf(stop)) },
    });
  });

  it('obey penalties and biases', async () => {
    const text = async (more: object) =>
      (await client.chat.completions.create({ ...greedy, messages, ...more })).choices[0]?.message.content;
    const plain = await text({ max_tokens: 160 });
    expect(await text({ max_tokens: 160, frequency_penalty: 2 })).not.toBe(plain);
    expect(await text({ max_tokens: 160, presence_penalty: 2 })).not.toBe(plain);
    expect(await text({ logit_bias: { 300: 100 }, max_tokens: 3 })).toMatch(/^(.+)\1\1$/);
    expect(
      await text({ max_tokens: 160, frequency_penalty: 0, presence_penalty: null, logit_bias: {} }),
    ).toBe(plain);
  });

  it('take messages of text parts, and the newer names of parameters', async () => {
    const parts = [
      { role: 'user' as const, content: [{ type: 'text' as const, text: messages[0]?.content ?? '' }] },
    ];
    const [one, other] = await Promise.all([
      client.chat.completions.create({ ...greedy, messages }),
      client.chat.completions.create({
        model: 'demo',
        temperature: 0,
        max_completion_tokens: 24,
        messages: parts,
      }),
    ]);
    expect(other.choices).toEqual(one.choices);
  });

  it('end where the client aborts, and the place is free again', async () => {
    const controller = new AbortController();
    const stream = await client.chat.completions.create(
      { model: 'demo', messages, stream: true, max_tokens: 900, ignore_eos: true } as never,
      { signal: controller.signal },
    );
    let chunks = 0;
    for await (const _ of stream as unknown as AsyncIterable<unknown>) if (++chunks === 5) controller.abort();
    expect(chunks).toBeLessThan(100);
    const after = await client.chat.completions.create({ ...greedy, messages });
    expect(after.usage?.completion_tokens).toBe(24);
  });
});

describe('completions', () => {
  it('continue texts and token ids', async () => {
    const prompt = 'Once upon a time';
    const answer = await client.completions.create({ ...greedy, prompt: [prompt, prompt], n: 2 });
    const alone = await running.model.generate(prompt, { temperature: 0, maxTokens: 24 }).result;
    expect(answer.choices.map(({ index, text }) => [index, text])).toEqual(
      [0, 1, 2, 3].map((index) => [index, alone.text]),
    );
    expect(answer.usage?.prompt_tokens).toBe(2 * alone.usage.promptTokens);
    const byIds = await client.completions.create({ ...greedy, prompt: [[5, 6, 7], [8]], max_tokens: 4 });
    const ids = await running.model.generate({ inputIds: [8] }, { temperature: 0, maxTokens: 4 }).result;
    expect(byIds.choices[1]?.text).toBe(ids.text);
  });

  it('stream, with log-probabilities at their places in the text', async () => {
    const stream = await client.completions.create({ ...greedy, prompt: 'Once', stream: true, logprobs: 2 });
    const whole = await client.completions.create({ ...greedy, prompt: 'Once', logprobs: 2 });
    let text = '';
    const offsets: number[] = [];
    for await (const { choices } of stream) {
      text += choices[0]?.text ?? '';
      offsets.push(...(choices[0]?.logprobs?.text_offset ?? []));
    }
    expect(text).toBe(whole.choices[0]?.text);
    expect(offsets).toEqual(whole.choices[0]?.logprobs?.text_offset);
    const tokens = whole.choices[0]?.logprobs?.tokens ?? [];
    offsets.forEach((offset, index) => {
      expect(text.slice(offset).startsWith(tokens[index] ?? '?')).toBe(true);
    });
  });
});

describe('errors', () => {
  const chat = (more: object) => client.chat.completions.create({ ...greedy, messages, ...more });

  it.each([
    ['an unknown model', { model: 'gpt-4o' }, OpenAI.NotFoundError, 'model_not_found', 'model'],
    ['no messages', { messages: [] }, OpenAI.BadRequestError, null, 'messages'],
    [
      'an image',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
      OpenAI.BadRequestError,
      null,
      'messages.0.content',
    ],
    ['a temperature out of range', { temperature: 3 }, OpenAI.BadRequestError, null, 'temperature'],
    ['an unknown parameter', { tempreture: 1 }, OpenAI.BadRequestError, 'unknown_parameter', 'tempreture'],
    ['top_logprobs alone', { top_logprobs: 2 }, OpenAI.BadRequestError, null, 'top_logprobs'],
    [
      'stream_options alone',
      { stream_options: { include_usage: true } },
      OpenAI.BadRequestError,
      null,
      'stream_options',
    ],
    [
      'a bias for a token that is not there',
      { logit_bias: { 999999: 1 } },
      OpenAI.BadRequestError,
      null,
      'logit_bias',
    ],
    ['too many answers', { n: 17 }, OpenAI.BadRequestError, null, 'n'],
  ])('%s', async (_, body, type, code, param) => {
    const error = await chat(body).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(type);
    expect(error).toMatchObject({ code, param, type: 'invalid_request_error' });
  });

  it('a prompt beyond the context has its status also when streamed', async () => {
    const long = [{ role: 'user', content: 'fox '.repeat(2000) }];
    await expect(chat({ messages: long, stream: true })).rejects.toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
    });
    const huge = [{ role: 'user', content: 'fox '.repeat(200_000) }];
    await expect(chat({ messages: huge })).rejects.toMatchObject({ code: 'context_length_exceeded' });
  });

  it('a wrong key, and none', async () => {
    const stranger = new OpenAI({ baseURL: `${running.url}/v1`, apiKey: 'third-key', maxRetries: 0 });
    await expect(stranger.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    const response = await fetch(`${running.url}/v1/models`);
    expect([response.status, response.headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
    expect(await response.json()).toMatchObject({ error: { code: 'missing_api_key' } });
  });

  it('an address that is not there', async () => {
    await expect(client.images.generate({ prompt: 'x' })).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    await expect(client.models.retrieve('other')).rejects.toMatchObject({ code: 'model_not_found' });
  });
});

it('the model is listed; health and readiness need no key', async () => {
  const { data } = await client.models.list();
  expect(data).toMatchObject([{ id: 'demo', object: 'model', owned_by: 'nearmoe' }]);
  expect(await client.models.retrieve('demo')).toMatchObject({ id: 'demo', max_model_len: 1024 });
  for (const path of ['/health', '/ready']) expect((await fetch(running.url + path)).status).toBe(200);
});
