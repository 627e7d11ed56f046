/**
 * Reasoning and tool calls of model families through the official client, over a scripted model: what a form is in each
 * family's text is tested in test/unit/server.
 */
import OpenAI from 'openai';
import { describe, expect, it } from 'vitest';
import type { ChatOptions } from '../../src/options.js';
import { scriptedServer } from './scripted-model.js';

const GLM = {
  toolCalls: { kind: 'arg-tags', open: '<tool_call>', close: '</tool_call>' },
  reasoning: { open: '<think>', close: '</think>' },
} as const;
const HARMONY = { toolCalls: { kind: 'harmony' }, reasoning: undefined } as const;
const DEEPSEEK = {
  toolCalls: { kind: 'deepseek', open: '<｜tool▁calls▁begin｜>', close: '<｜tool▁calls▁end｜>' },
  reasoning: undefined,
} as const;

const tools = [
  {
    type: 'function' as const,
    function: {
      name: 'weather',
      parameters: { type: 'object', properties: { city: { type: 'string' }, days: { type: 'integer' } } },
    },
  },
];
const messages = [{ role: 'user' as const, content: 'hi' }];
type WithReasoning = { reasoning_content?: string };

function start(about: Parameters<typeof scriptedServer>[1]) {
  const { model, server } = scriptedServer({}, about);
  const client = new OpenAI({
    baseURL: 'http://localhost/v1',
    apiKey: 'none',
    maxRetries: 0,
    fetch: (input, init) => server.fetch(new Request(input, init)),
  });
  return { model, client };
}

/** Answers request `index` with these parts. */
async function answer(
  model: ReturnType<typeof start>['model'],
  index: number,
  parts: readonly string[],
  opens = false,
) {
  const running = await model.started(index);
  if (opens) running.openReasoning();
  for (const part of parts) running.push(part);
  running.finish();
  return running;
}

const PARTS = [
  'Rain',
  '?\n</thi',
  'nk>\nI lo',
  'ok.\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_va',
  'lue>Oslo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>',
];

describe('an answer with reasoning, text and a call', () => {
  const call = { name: 'weather', arguments: '{"city":"Oslo","days":3}' };

  it('comes whole', async () => {
    const { model, client } = start(GLM);
    const pending = client.chat.completions.create({ model: 'm', messages, tools });
    const { options } = await answer(model, 0, PARTS, true);
    const [choice] = (await pending).choices;
    expect(choice).toMatchObject({
      finish_reason: 'tool_calls',
      message: { content: 'I look.', reasoning_content: 'Rain?', tool_calls: [{ function: call }] },
    });
    expect((options as ChatOptions).skipSpecialTokens).toBe(true);
  });

  it('comes in deltas, in this order', async () => {
    const { model, client } = start(GLM);
    const pending = client.chat.completions.create({ model: 'm', messages, tools, stream: true });
    const running = answer(model, 0, PARTS, true);
    const deltas: OpenAI.ChatCompletionChunk.Choice.Delta[] = [];
    for await (const { choices } of await pending) deltas.push(...choices.map(({ delta }) => delta));
    await running;
    const kinds = deltas.map((delta) => Object.keys(delta).join());
    expect(kinds).toEqual([
      'role,content',
      'reasoning_content',
      'reasoning_content',
      'content',
      'content',
      'tool_calls',
      '',
    ]);
    expect(deltas.map((delta) => (delta as WithReasoning).reasoning_content ?? '').join('')).toBe('Rain?');
    expect(deltas.map(({ content }) => content ?? '').join('')).toBe('I look.');
    expect(deltas[5]?.tool_calls).toMatchObject([{ index: 0, type: 'function', function: call }]);
  });

  it('is left as it is where the request wants it so', async () => {
    const { model, client } = start(GLM);
    const body = { model: 'm', messages, separate_reasoning: false };
    const pending = client.chat.completions.create(body);
    await answer(model, 0, ['<think>\nHm.</think>Yes.']);
    expect((await pending).choices[0]?.message).toEqual({
      role: 'assistant',
      content: '<think>\nHm.</think>Yes.',
      refusal: null,
    });
  });
});

it('channels are read with and without tools, and need the special tokens in the text', async () => {
  const { model, client } = start(HARMONY);
  const plain = client.chat.completions.create({ model: 'm', messages });
  const analysis = '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant';
  const { options } = await answer(model, 0, [`${analysis}<|channel|>final<|message|>Yes.`]);
  expect((options as ChatOptions).skipSpecialTokens).toBe(false);
  expect((await plain).choices[0]).toMatchObject({
    finish_reason: 'stop',
    message: { content: 'Yes.', reasoning_content: 'Hm.' },
  });
  const calling = client.chat.completions.create({ model: 'm', messages, tools });
  await answer(model, 1, [
    `${analysis}<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{}`,
  ]);
  expect((await calling).choices[0]).toMatchObject({
    finish_reason: 'tool_calls',
    message: {
      content: null,
      reasoning_content: 'Hm.',
      tool_calls: [{ function: { name: 'weather', arguments: '{}' } }],
    },
  });
});

it('earlier reasoning and calls reach the template as its family takes them', async () => {
  const calls = [
    { id: 'call_1', type: 'function' as const, function: { name: 'weather', arguments: '{"days":1}' } },
  ];
  const said = { role: 'assistant' as const, content: null, reasoning_content: 'Hm.', tool_calls: calls };
  const result = { role: 'tool' as const, content: 'rain', tool_call_id: 'call_1' };
  const given = async (about: Parameters<typeof start>[0]) => {
    const { model, client } = start(about);
    const pending = client.chat.completions.create({
      model: 'm',
      messages: [...messages, said, result],
      tools,
    });
    const { prompt } = await answer(model, 0, ['so']);
    await pending;
    return (prompt as object[])[1];
  };
  const parsed = [{ ...calls[0], function: { name: 'weather', arguments: { days: 1 } } }];
  expect(await given(GLM)).toMatchObject({ reasoning_content: 'Hm.', tool_calls: parsed });
  expect(await given(HARMONY)).toMatchObject({ thinking: 'Hm.', tool_calls: parsed });
  expect(await given(DEEPSEEK)).toMatchObject({ tool_calls: calls });
});

it('a call that is required needs schemas that its form can be held to', async () => {
  const { client, model } = start(GLM);
  const body = { model: 'm', messages, tool_choice: 'required' as const };
  const parameters = { type: 'object', properties: { city: { type: 'string', pattern: '^[a-z]+$' } } };
  const strict = [{ type: 'function' as const, function: { name: 'weather', parameters } }];
  const refused = client.chat.completions.create({ ...body, tools: strict });
  await expect(refused).rejects.toMatchObject({ status: 400, param: 'tool_choice' });
  const asked = client.chat.completions.create({ ...body, tools });
  const running = await model.started(0);
  expect(running.options.responseFormat).toMatchObject({ type: 'choice' });
  running.push('<tool_call>weather<arg_key>days</arg_key><arg_value>2</arg_value></tool_call>');
  running.finish();
  const [call] = (await asked).choices[0]?.message.tool_calls ?? [];
  expect(call).toMatchObject({ function: { name: 'weather', arguments: '{"days":2}' } });
});
