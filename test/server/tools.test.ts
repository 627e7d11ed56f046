/**
 * Tools and response formats through the official client. The demo model has a template here that takes tools; it never
 * saw one, so what is required comes from the form that its answers are held to.
 */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { demoModel, startServer } from './built-server.js';

/** The form of Qwen's and Hermes' templates, in short. */
const TEMPLATE = `{%- if tools %}{{ 'Tools: ' }}{%- for tool in tools %}{{ tool | tojson }}{%- endfor %}{{ '\\n' }}{%- endif %}
{%- for message in messages %}{{ message.role + ': ' + message.content }}
{%- for call in message.tool_calls or [] %}{{ '<tool_call>' + call.function | tojson + '</tool_call>' }}{%- endfor %}{{ '\\n' }}
{%- endfor %}`;

const folder = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-tools-'));
let running: Awaited<ReturnType<typeof startServer>>;
let client: OpenAI;
beforeAll(async () => {
  cpSync(demoModel, folder, { recursive: true });
  writeFileSync(path.join(folder, 'chat_template.jinja'), TEMPLATE);
  running = await startServer({ model: folder });
  client = running.client;
});
afterAll(async () => {
  await running.stop();
  rmSync(folder, { recursive: true });
});

const tool = (name: string, parameters: Record<string, unknown>) => ({
  type: 'function' as const,
  function: { name, description: `the ${name}`, parameters },
});
const weather = tool('weather', {
  type: 'object',
  properties: { city: { enum: ['Oslo', 'Lima'] }, days: { type: 'integer', minimum: 1, maximum: 9 } },
  required: ['city', 'days'],
  additionalProperties: false,
});
const clock = tool('clock', { type: 'object', properties: {}, additionalProperties: false });
const ask = {
  model: 'demo',
  messages: [{ role: 'user' as const, content: 'What is the weather in Oslo?' }],
  temperature: 1,
  max_tokens: 400,
};

describe('tools', () => {
  it.each([1, 2, 3])('a call that is required is valid, seed %i', async (seed) => {
    const answer = await client.chat.completions.create({
      ...ask,
      seed,
      tools: [weather, clock],
      tool_choice: 'required',
    });
    const [choice] = answer.choices;
    expect(choice).toMatchObject({ finish_reason: 'tool_calls', message: { content: null } });
    const calls = choice?.message.tool_calls ?? [];
    expect(calls.length).toBe(1);
    const [call] = calls;
    if (call?.type !== 'function') throw new Error('not a function');
    expect(call.id).toMatch(/^call_/);
    const given = JSON.parse(call.function.arguments);
    if (call.function.name === 'clock') expect(given).toEqual({});
    else {
      expect(['Oslo', 'Lima']).toContain(given.city);
      expect(given.days).toBeGreaterThan(0);
    }
  });

  it('a named one is called, also in a stream, as the client’s runner reads it', async () => {
    const body = {
      ...ask,
      seed: 4,
      tools: [weather, clock],
      tool_choice: { type: 'function' as const, function: { name: 'weather' } },
    };
    const whole = await client.chat.completions.create(body);
    const final = await client.chat.completions.stream(body).finalChatCompletion();
    const callOf = (answer: OpenAI.ChatCompletion) => {
      const [call] = answer.choices[0]?.message.tool_calls ?? [];
      return call?.type === 'function' ? [call.function.name, call.function.arguments] : undefined;
    };
    expect(callOf(whole)?.[0]).toBe('weather');
    expect(callOf(final)).toEqual(callOf(whole));
    expect(final.choices[0]?.finish_reason).toBe('tool_calls');
  });

  it('results of calls go into the next prompt; calls reach the template as objects', async () => {
    const call = {
      id: 'call_1',
      type: 'function' as const,
      function: { name: 'weather', arguments: '{"city":"Oslo"}' },
    };
    const messages = [
      ...ask.messages,
      { role: 'assistant' as const, content: null, tool_calls: [call] },
      { role: 'tool' as const, content: 'rain', tool_call_id: 'call_1' },
    ];
    const answer = await client.chat.completions.create({ ...ask, messages, tools: [weather] });
    const text =
      `Tools: ${JSON.stringify(weather)}\nuser: ${ask.messages[0]?.content}\n` +
      'assistant: <tool_call>{"name":"weather","arguments":{"city":"Oslo"}}</tool_call>\ntool: rain\n';
    // tojson of the template writes spaces behind commas and colons.
    const spaced = text.replace(/([:,])(?=["{[\d\w])/g, '$1 ');
    const direct = await running.model.generate(spaced, { maxTokens: 1 }).result;
    expect(answer.usage?.prompt_tokens).toBe(direct.usage.promptTokens);
  });

  it('are refused where the template has no place for them, or the choice has no tool', async () => {
    const plain = await startServer();
    await expect(plain.client.chat.completions.create({ ...ask, tools: [weather] })).rejects.toMatchObject({
      status: 400,
      param: 'tools',
    });
    const none = await plain.client.chat.completions.create({
      ...ask,
      tools: [weather],
      tool_choice: 'none',
    });
    expect(none.choices[0]?.message.tool_calls).toBeUndefined();
    await plain.stop();
    await expect(
      client.chat.completions.create({
        ...ask,
        tools: [clock],
        tool_choice: { type: 'function', function: { name: 'weather' } },
      }),
    ).rejects.toMatchObject({ status: 400, param: 'tool_choice' });
  });
});

describe('response_format', () => {
  const schema = {
    type: 'object',
    properties: {
      name: { type: 'string', maxLength: 8 },
      age: { type: 'integer', minimum: 0, maximum: 150 },
    },
    required: ['name', 'age'],
    additionalProperties: false,
  };

  it('json_schema is always valid, whole and streamed', async () => {
    for (const seed of [1, 2, 3]) {
      const body = {
        ...ask,
        seed,
        response_format: { type: 'json_schema' as const, json_schema: { name: 'person', schema } },
      };
      const whole = await client.chat.completions.create(body);
      const { name, age, ...rest } = JSON.parse(whole.choices[0]?.message.content ?? '');
      expect([typeof name, rest]).toEqual(['string', {}]);
      expect(age).toBeLessThanOrEqual(150);
      expect(whole.choices[0]?.finish_reason).toBe('stop');
      const final = await client.chat.completions.stream(body).finalChatCompletion();
      expect(final.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
    }
  });

  it('json_object begins one; a regular expression matches', async () => {
    const json = await client.chat.completions.create({ ...ask, response_format: { type: 'json_object' } });
    expect(json.choices[0]?.message.content).toMatch(/^\s*\{/);
    const form = { type: 'regex', pattern: '(yes|no), [0-9]{3}' };
    const held = await client.chat.completions.create({ ...ask, response_format: form } as never);
    expect((held as OpenAI.ChatCompletion).choices[0]?.message.content).toMatch(/^(yes|no), [0-9]{3}$/);
  });

  it('a schema that cannot be held to is refused with its place', async () => {
    const wrong = { type: 'array', uniqueItems: true, items: { type: 'integer' } };
    await expect(
      client.chat.completions.create({
        ...ask,
        stream: true,
        response_format: { type: 'json_schema', json_schema: { name: 'x', schema: wrong } },
      }),
    ).rejects.toMatchObject({ status: 400, param: expect.stringContaining('response_format') });
  });
});

describe('marks of the answer', () => {
  it('a prompt that opens the reasoning makes all of an answer without its end reasoning', async () => {
    const thinking = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-thinking-'));
    cpSync(demoModel, thinking, { recursive: true });
    const template = "{{ messages[0].content }}{% if false %}</think>{% endif %}{{ '\\n<think>\\n' }}";
    writeFileSync(path.join(thinking, 'chat_template.jinja'), template);
    const own = await startServer({ model: thinking });
    const body = { ...ask, seed: 1, max_tokens: 20 };
    const { message } = (await own.client.chat.completions.create(body)).choices[0] ?? {};
    expect(message).toMatchObject({ content: null, reasoning_content: expect.stringMatching(/\w/) });
    const deltas: object[] = [];
    for await (const { choices } of await own.client.chat.completions.create({ ...body, stream: true }))
      deltas.push(...choices.map(({ delta }) => delta));
    const reasoning = deltas.map(
      (delta) => (delta as { reasoning_content?: string }).reasoning_content ?? '',
    );
    expect(reasoning.join('')).toBe((message as { reasoning_content?: string }).reasoning_content);
    await own.stop();
    rmSync(thinking, { recursive: true });
  });

  it('special tokens are in the text where they are asked for', async () => {
    // The end-of-text token of the demo model, and no other.
    const bias = { maxTokens: 3, ignoreEos: true, logitBias: { 0: 1000 } };
    const plain = await running.model.generate('a', bias).result;
    expect([...plain.tokenIds, plain.text]).toEqual([0, 0, 0, '']);
    const kept = await running.model.generate('a', { ...bias, skipSpecialTokens: false }).result;
    expect(kept.text).toMatch(/^(<\|?[\w|]+\|?>){3}$/);
  });
});

describe('calls in forms of other families', () => {
  const glm =
    '{{ tools }}{{ messages[0].content }}{% if false %}<tool_call>x<arg_key>k</arg_key>{% endif %}\n';
  const deepseek = '{{ tools }}{{ messages[0].content }}{% if false %}<｜tool▁calls▁begin｜>{% endif %}\n';

  it.each([
    ['GLM', glm],
    ['DeepSeek', deepseek],
  ])('%s: a call that is required is valid, whole and streamed', async (_, template) => {
    const other = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-form-'));
    cpSync(demoModel, other, { recursive: true });
    writeFileSync(path.join(other, 'chat_template.jinja'), template);
    const own = await startServer({ model: other });
    const body = { ...ask, seed: 1, tools: [weather], tool_choice: 'required' as const };
    const whole = await own.client.chat.completions.create(body);
    const final = await own.client.chat.completions.stream(body).finalChatCompletion();
    for (const { choices } of [whole, final]) {
      const [choice] = choices;
      expect(choice).toMatchObject({ finish_reason: 'tool_calls', message: { content: null } });
      const [call] = choice?.message.tool_calls ?? [];
      if (call?.type !== 'function') throw new Error('not a function');
      const { city, days, ...rest } = JSON.parse(call.function.arguments);
      expect([call.function.name, ['Oslo', 'Lima'].includes(city), rest]).toEqual(['weather', true, {}]);
      expect(days).toBeGreaterThan(0);
    }
    await own.stop();
    rmSync(other, { recursive: true });
  });
});

describe('model.chat', () => {
  const form = {
    type: 'sequence' as const,
    parts: [
      { type: 'literal' as const, text: 'So.\n<tool_call>{"name": "weather", "arguments": ' },
      { type: 'json_schema' as const, schema: weather.function.parameters },
      { type: 'literal' as const, text: '}</tool_call>' },
    ],
  };

  it('tells calls from text, and a session goes on with both', async () => {
    const options = { tools: [weather], responseFormat: form, seed: 1, maxTokens: 200 };
    const { text, answer } = await running.model.chat(ask.messages, options).result;
    expect(text).toMatch(/^So\.\n<tool_call>/);
    expect(answer).toMatchObject({
      content: 'So.',
      reasoning: '',
      toolCalls: [{ function: { name: 'weather' } }],
    });
    const session = running.model.createChatSession({ tools: [weather] });
    const first = await session.send('x', options).result;
    const [made] = first.answer?.toolCalls ?? [];
    const given = JSON.parse(made?.function.arguments ?? '');
    expect(session.messages[1]).toMatchObject({
      content: 'So.',
      tool_calls: [{ function: { arguments: given } }],
    });
    const next = await session.send(
      { role: 'tool', content: 'rain', tool_call_id: made?.id },
      { maxTokens: 1 },
    ).result;
    expect(next.usage.promptTokens).toBeGreaterThan(first.usage.promptTokens);
    expect((await running.model.generate('x', { maxTokens: 1 }).result).answer).toBeUndefined();
  });
});
