/** The adapters against the real packages: the AI SDK's functions, LangChain's runnables, OpenTelemetry's SDK. */
import { HumanMessage, SystemMessage } from '@langchain/core/messages';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { generateText, jsonSchema, Output, streamText } from 'ai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Model } from '../../src/index.js';
import { goldenFolder, nearmoe } from '../engine/built.js';

const entry = (name: string) => new URL(`../../dist/adapters/${name}.js`, import.meta.url).href;
const { nearmoeLanguageModel } = (await import(
  entry('ai-sdk')
)) as typeof import('../../src/adapters/ai-sdk.js');
const { ChatNearmoe } = (await import(
  entry('langchain')
)) as typeof import('../../src/adapters/langchain.js');
const { recordSpans } = (await import(
  entry('opentelemetry')
)) as typeof import('../../src/adapters/opentelemetry.js');

let model: Model;
beforeAll(async () => {
  model = await nearmoe.loadModel({ model: goldenFolder('qwen3_moe'), units: 2, pinThreads: false });
});
afterAll(() => model.dispose());

const greedy = { temperature: 0, ignoreEos: true, maxTokens: 12 };
const direct = (content: string, options: object = {}) =>
  model.chat([{ role: 'user', content }], { ...greedy, ...options }).result;
const schema = {
  type: 'object',
  properties: { n: { type: 'integer', minimum: 1, maximum: 9 } },
  required: ['n'],
  additionalProperties: false,
} as const;

describe('AI SDK', () => {
  const language = () => nearmoeLanguageModel(model, { defaults: { ignoreEos: true } });

  it('generates what the model alone answers', async () => {
    const expected = await direct('Hello');
    const result = await generateText({
      model: language(),
      prompt: 'Hello',
      temperature: 0,
      maxOutputTokens: 12,
    });
    expect(result.text).toBe(expected.text);
    expect(result.finishReason).toBe('length');
    expect(result.usage).toMatchObject({ inputTokens: expected.usage.promptTokens, outputTokens: 12 });
  });

  it('streams the same', async () => {
    const { textStream, usage } = streamText({
      model: language(),
      prompt: 'Hello',
      temperature: 0,
      maxOutputTokens: 12,
    });
    let text = '';
    for await (const part of textStream) text += part;
    expect(text).toBe((await direct('Hello')).text);
    expect((await usage).outputTokens).toBe(12);
  });

  it('gives objects by schema, warns of tools, refuses files, aborts', async () => {
    const { output } = await generateText({
      model: language(),
      prompt: 'A number',
      output: Output.object({ schema: jsonSchema<{ n: number }>(schema) }),
    });
    expect(output.n).toBeGreaterThanOrEqual(1);
    expect(output.n).toBeLessThanOrEqual(9);
    const tools = { look: { inputSchema: jsonSchema({ type: 'object' }), description: 'looks' } };
    const { warnings } = await generateText({ model: language(), prompt: 'x', tools, maxOutputTokens: 2 });
    expect(warnings).toEqual([{ type: 'unsupported', feature: 'tools' }]);
    const image = { type: 'image', image: new Uint8Array([137, 80, 78, 71]) } as const;
    const refused = generateText({ model: language(), messages: [{ role: 'user', content: [image] }] });
    await expect(refused).rejects.toThrow(/file parts/);
    const aborted = generateText({ model: language(), prompt: 'x', abortSignal: AbortSignal.abort() });
    await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('tells errors in the middle of a stream', async () => {
    const controller = new AbortController();
    const { stream } = await language().doStream({
      prompt: [{ role: 'user', content: [{ type: 'text', text: 'Hello' }] }],
      maxOutputTokens: 200,
      abortSignal: controller.signal,
    });
    const types: string[] = [];
    for await (const part of stream as unknown as AsyncIterable<{ type: string }>) {
      types.push(part.type);
      if (part.type === 'text-delta') controller.abort();
    }
    expect(types.slice(0, 3)).toEqual(['stream-start', 'response-metadata', 'text-start']);
    expect(types.at(-1)).toBe('error');
  });
});

describe('LangChain', () => {
  const chat = () => new ChatNearmoe({ model, defaults: greedy });

  it('answers what the model alone answers', async () => {
    const message = await chat().invoke([new HumanMessage('Hello')]);
    const expected = await direct('Hello');
    expect(message.content).toBe(expected.text);
    expect(message.usage_metadata).toMatchObject({
      input_tokens: expected.usage.promptTokens,
      output_tokens: 12,
    });
    expect(message.response_metadata).toMatchObject({ finishReason: 'length' });
  });

  it('streams, and adds up to one message', async () => {
    let whole: Awaited<ReturnType<ReturnType<typeof chat>['invoke']>> | undefined;
    let parts = 0;
    for await (const chunk of await chat().stream([
      new SystemMessage('Be brief'),
      new HumanMessage('Hello'),
    ])) {
      whole = whole === undefined ? chunk : whole.concat(chunk);
      parts++;
    }
    expect(parts).toBeGreaterThan(2);
    const messages = [
      { role: 'system', content: 'Be brief' },
      { role: 'user', content: 'Hello' },
    ];
    expect(whole?.content).toBe((await model.chat(messages, greedy).result).text);
    expect(whole?.usage_metadata?.output_tokens).toBe(12);
  });

  it('takes nearmoe’s options by call, ends by signal, refuses images', async () => {
    const json = await chat().invoke('A number', {
      responseFormat: { type: 'json_schema', schema },
      maxTokens: 60,
    });
    expect(JSON.parse(String(json.content))).toEqual({ n: expect.any(Number) });
    await expect(chat().invoke('x', { signal: AbortSignal.abort() })).rejects.toThrow();
    const image = new HumanMessage({
      content: [{ type: 'image_url', image_url: 'data:image/png;base64,AA==' }],
    });
    await expect(chat().invoke([image])).rejects.toMatchObject({ code: 'ERR_OPTION' });
  });
});

describe('OpenTelemetry', () => {
  it('records requests by the gen_ai conventions', async () => {
    const exporter = new InMemorySpanExporter();
    const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
    const stop = recordSpans(provider.getTracer('test'));
    const { usage } = await direct('Hello', { topK: 5, stop: 'never said' });
    await expect(model.generate('x', { signal: AbortSignal.abort() }).result).rejects.toThrow();
    await new Promise((resolve) => setImmediate(resolve));
    stop();
    await direct('Hello');
    const [done, failed, ...others] = exporter.getFinishedSpans();
    expect(others).toEqual([]);
    expect(done?.name).toBe('chat qwen3_moe');
    expect(done?.attributes).toMatchObject({
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'nearmoe',
      'gen_ai.request.model': 'qwen3_moe',
      'gen_ai.request.max_tokens': 12,
      'gen_ai.request.top_k': 5,
      'gen_ai.request.stop_sequences': ['never said'],
      'gen_ai.response.finish_reasons': ['length'],
      'gen_ai.usage.input_tokens': usage.promptTokens,
      'gen_ai.usage.output_tokens': 12,
    });
    expect(failed?.name).toBe('text_completion qwen3_moe');
    expect(failed?.attributes['error.type']).toBe('ERR_ABORTED');
    expect(failed?.status.code).toBe(2);
  });
});
