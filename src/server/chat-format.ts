/**
 * The bodies of chat completions: chunks of a stream and whole answers, with text, tool calls and log-probabilities. Made
 * by chat.ts for each request, driven by generate.ts.
 */
import type { GenerateResult, GenerationPart } from '../llm.js';
import type { ToolCallStyle } from '../model/tool-call-style.js';
import { answerId, finishReasonOf, nowSeconds, type ServedModel } from './answers.js';
import type { AnswerFormat, WholeAnswer } from './generate.js';
import { chatLogprobs } from './logprobs.js';
import { type Found, type ToolCall, ToolCallReader } from './tool-calls.js';
import type { ToolUse } from './tool-request.js';
import type { UsageBody } from './usage.js';

/** One answer that is being sent. */
type Stream = { reader: ToolCallReader | undefined; calls: number };

export class ChatFormat implements AnswerFormat {
  readonly #head: { id: string; created: number; model: string; system_fingerprint: string };
  readonly #includeUsage: boolean;
  readonly #use: ToolUse;
  readonly #style: ToolCallStyle | undefined;
  readonly #streams = new Map<number, Stream>();

  constructor(served: ServedModel, includeUsage: boolean, use: ToolUse) {
    this.#includeUsage = includeUsage;
    this.#use = use;
    this.#style = served.model.info.toolCalls;
    this.#head = {
      id: answerId('chatcmpl'),
      created: nowSeconds(),
      model: served.name,
      system_fingerprint: served.fingerprint,
    };
  }

  opening(index: number): object[] {
    this.#streams.set(index, { reader: this.#reader(), calls: 0 });
    return [this.#chunk({ index, delta: { role: 'assistant', content: '' }, finish_reason: null })];
  }

  part(index: number, { text, logprobs }: GenerationPart): object[] {
    const stream = this.#streams.get(index);
    const found = stream?.reader?.push(text) ?? { text, calls: [] };
    const deltas = this.#deltas(stream, found);
    // Tokens are told when they come, also where their text is held back.
    if (deltas.length === 0 && logprobs) deltas.push({});
    return deltas.map((delta, at) => {
      const choice = { index, delta, finish_reason: null };
      return this.#chunk(logprobs && at === 0 ? { ...choice, logprobs: chatLogprobs(logprobs) } : choice);
    });
  }

  closing(index: number, result: GenerateResult): object[] {
    const stream = this.#streams.get(index);
    const rest = this.#deltas(stream, stream?.reader?.end() ?? { text: '', calls: [] });
    const chunks = rest.map((delta) => this.#chunk({ index, delta, finish_reason: null }));
    const reason = stream && stream.calls > 0 ? 'tool_calls' : finishReasonOf(result);
    return [...chunks, this.#chunk({ index, delta: {}, finish_reason: reason })];
  }

  usage(usage: UsageBody): object {
    return { ...this.#head, object: 'chat.completion.chunk', choices: [], usage };
  }

  whole(answers: readonly WholeAnswer[], usage: UsageBody): object {
    const choices = answers.map(({ parts, result }, index) => {
      const { text, calls } = this.#read(result.text);
      const message = {
        role: 'assistant',
        content: calls.length > 0 && text === '' ? null : text,
        refusal: null,
      };
      return {
        index,
        message: calls.length > 0 ? { ...message, tool_calls: calls } : message,
        logprobs: result.logprobs ? chatLogprobs(parts.flatMap((part) => part.logprobs ?? [])) : null,
        finish_reason: calls.length > 0 ? 'tool_calls' : finishReasonOf(result),
      };
    });
    return { ...this.#head, object: 'chat.completion', choices, usage };
  }

  /** A whole text at once. */
  #read(text: string): Found {
    const reader = this.#reader();
    if (reader === undefined) return { text, calls: [] };
    const [first, rest] = [reader.push(text), reader.end()];
    return { text: first.text + rest.text, calls: this.#kept([...first.calls, ...rest.calls], 0) };
  }

  #deltas(stream: Stream | undefined, { text, calls }: Found): object[] {
    const deltas: object[] = text === '' ? [] : [{ content: text }];
    if (stream === undefined) return deltas;
    for (const call of this.#kept(calls, stream.calls))
      deltas.push({ tool_calls: [{ index: stream.calls++, ...call }] });
    return deltas;
  }

  #kept(calls: ToolCall[], before: number): ToolCall[] {
    return this.#use.single ? calls.slice(0, Math.max(0, 1 - before)) : calls;
  }

  #reader(): ToolCallReader | undefined {
    const { names } = this.#use;
    return this.#style && names.length > 0 ? new ToolCallReader(this.#style, names) : undefined;
  }

  #chunk(choice: object): object {
    const usage = this.#includeUsage ? { usage: null } : {};
    return { ...this.#head, object: 'chat.completion.chunk', choices: [choice], ...usage };
  }
}
