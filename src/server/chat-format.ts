/**
 * The bodies of chat completions: chunks of a stream and whole answers, with reasoning, text, tool calls and log-probabilities. Made
 * by chat.ts for each request, driven by generate.ts.
 */

import type { AnswerReader, Found } from '../answer/answer-parts.js';
import { type AnswerStyles, answerReader } from '../answer/answer-reader.js';
import { readAnswer } from '../answer/chat-answer.js';
import type { ToolCall } from '../answer/tool-calls.js';
import type { GenerateResult, GenerationPart } from '../llm.js';
import { answerId, finishReasonOf, nowSeconds, type ServedModel } from './answers.js';
import type { AnswerFormat, WholeAnswer } from './generate.js';
import { chatLogprobs } from './logprobs.js';
import type { ToolUse } from './tool-request.js';
import type { UsageBody } from './usage.js';

/** One answer that is being sent; its reader is made with its first part. */
type Stream = { reader?: AnswerReader | undefined; calls: number };

export class ChatFormat implements AnswerFormat {
  readonly #head: { id: string; created: number; model: string; system_fingerprint: string };
  readonly #includeUsage: boolean;
  readonly #use: ToolUse;
  readonly #styles: AnswerStyles;
  readonly #streams = new Map<number, Stream>();

  constructor(served: ServedModel, includeUsage: boolean, use: ToolUse, styles: AnswerStyles) {
    this.#includeUsage = includeUsage;
    this.#use = use;
    this.#styles = styles;
    this.#head = {
      id: answerId('chatcmpl'),
      created: nowSeconds(),
      model: served.name,
      system_fingerprint: served.fingerprint,
    };
  }

  opening(index: number): object[] {
    this.#streams.set(index, { calls: 0 });
    return [this.#chunk({ index, delta: { role: 'assistant', content: '' }, finish_reason: null })];
  }

  part(index: number, part: GenerationPart): object[] {
    const { text, logprobs } = part;
    const stream = this.#streams.get(index);
    if (stream !== undefined && !('reader' in stream)) stream.reader = this.#reader(part);
    const found = stream?.reader?.push(text) ?? { reasoning: '', text, calls: [] };
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
    const rest = this.#deltas(stream, stream?.reader?.end() ?? { reasoning: '', text: '', calls: [] });
    const chunks = rest.map((delta) => this.#chunk({ index, delta, finish_reason: null }));
    const reason = stream && stream.calls > 0 ? 'tool_calls' : finishReasonOf(result);
    return [...chunks, this.#chunk({ index, delta: {}, finish_reason: reason })];
  }

  usage(usage: UsageBody): object {
    return { ...this.#head, object: 'chat.completion.chunk', choices: [], usage };
  }

  whole(answers: readonly WholeAnswer[], usage: UsageBody): object {
    const choices = answers.map(({ parts, result }, index) => {
      const { reasoning, text, calls } = this.#read(result.text, parts[0]);
      const message = {
        role: 'assistant',
        content: text === '' && (calls.length > 0 || reasoning !== '') ? null : text,
        refusal: null,
        ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
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
  #read(text: string, first: GenerationPart | undefined): Found {
    const begins = first?.inReasoning === true;
    const { reasoning, content, toolCalls } = readAnswer(text, this.#styles, this.#use.functions, begins);
    return { reasoning, text: content, calls: this.#kept(toolCalls, 0) };
  }

  #deltas(stream: Stream | undefined, { reasoning, text, calls }: Found): object[] {
    const deltas: object[] = [];
    if (reasoning !== '') deltas.push({ reasoning_content: reasoning });
    if (text !== '') deltas.push({ content: text });
    if (stream === undefined) return deltas;
    for (const call of this.#kept(calls, stream.calls))
      deltas.push({ tool_calls: [{ index: stream.calls++, ...call }] });
    return deltas;
  }

  #kept(calls: ToolCall[], before: number): ToolCall[] {
    return this.#use.single ? calls.slice(0, Math.max(0, 1 - before)) : calls;
  }

  #reader(first: GenerationPart | undefined): AnswerReader | undefined {
    return answerReader(this.#styles, this.#use.functions, first?.inReasoning === true);
  }

  #chunk(choice: object): object {
    const usage = this.#includeUsage ? { usage: null } : {};
    return { ...this.#head, object: 'chat.completion.chunk', choices: [choice], ...usage };
  }
}
