/**
 * Takes an answer apart as its text comes: reasoning, the answer itself, tool calls. Used by chat-format.ts; which parts
 * a model has is told by its chat template (model/reasoning-style.ts, model/tool-call-style.ts).
 */
import type { ReasoningStyle } from '../model/reasoning-style.js';
import type { ToolCallStyle } from '../model/tool-call-style.js';
import type { AnswerReader, Found } from './answer-parts.js';
import { HarmonyReader } from './harmony.js';
import type { OfferedFunction } from './tool-call-forms.js';
import { markPrefixLength, ToolCallReader } from './tool-calls.js';

export type AnswerStyles = { toolCalls: ToolCallStyle | undefined; reasoning: ReasoningStyle | undefined };

/** Whether marks that the tokenizer may hold for special tokens must be in the text. */
export function needsMarks({ toolCalls }: AnswerStyles, hasTools: boolean): boolean {
  if (toolCalls?.kind === 'harmony') return true;
  return hasTools && (toolCalls?.kind === 'deepseek' || toolCalls?.kind === 'kimi');
}

/** `beginsInReasoning`: the prompt has opened it. Undefined where an answer is text and nothing else. */
export function answerReader(
  styles: AnswerStyles,
  functions: readonly OfferedFunction[],
  beginsInReasoning: boolean,
): AnswerReader | undefined {
  const offered = new Map(functions.map((entry) => [entry.name, entry]));
  const { toolCalls, reasoning } = styles;
  if (toolCalls?.kind === 'harmony') return new HarmonyReader(offered);
  const calls = toolCalls && offered.size > 0 ? new ToolCallReader(toolCalls, offered) : undefined;
  if (reasoning !== undefined) return new ReasoningReader(reasoning, beginsInReasoning, calls);
  return calls && new ReasoningReader(undefined, false, calls);
}

/** Reasoning at the beginning of an answer, between marks; calls are looked for behind it. */
class ReasoningReader implements AnswerReader {
  readonly #style: ReasoningStyle | undefined;
  readonly #calls: ToolCallReader | undefined;
  #state: 'beginning' | 'reasoning' | 'answer';
  #held = '';
  /** Trimmed at its beginning: space behind a mark is the template's. */
  #isFresh = true;
  /** The mark that ends the answer, where its opening mark came. */
  #close: string | undefined;
  #isClosed = false;

  constructor(style: ReasoningStyle | undefined, beginsInside: boolean, calls: ToolCallReader | undefined) {
    this.#style = style;
    this.#calls = calls;
    this.#state = style === undefined ? 'answer' : beginsInside ? 'reasoning' : 'beginning';
    this.#isFresh = beginsInside;
  }

  push(part: string): Found {
    this.#held += part;
    const found: Found = { reasoning: '', text: '', calls: [] };
    if (this.#state === 'beginning') this.#begin();
    if (this.#state === 'reasoning') this.#reason(found);
    if (this.#state === 'answer') this.#answer(found, false);
    return found;
  }

  end(): Found {
    const found: Found = { reasoning: '', text: '', calls: [] };
    if (this.#state === 'reasoning') found.reasoning = this.#held;
    else this.#answer(found, true);
    const rest = this.#calls?.end();
    if (rest !== undefined) {
      found.text += rest.text;
      found.calls.push(...rest.calls);
    }
    return found;
  }

  /** Reasoning comes first or not at all. */
  #begin(): void {
    const { open = '' } = this.#style ?? {};
    const text = this.#held.trimStart();
    if (text.startsWith(open)) {
      this.#held = text.slice(open.length);
      this.#state = 'reasoning';
      this.#isFresh = true;
    } else if (!open.startsWith(text)) this.#state = 'answer';
  }

  #reason(found: Found): void {
    const { close = '' } = this.#style ?? {};
    if (this.#isFresh) this.#held = this.#held.trimStart();
    if (this.#held !== '') this.#isFresh = false;
    const end = this.#held.indexOf(close);
    if (end < 0) {
      const keep = this.#keep(close);
      found.reasoning += this.#held.slice(0, keep);
      this.#held = this.#held.slice(keep);
      return;
    }
    found.reasoning += this.#held.slice(0, end).trimEnd();
    this.#held = this.#held.slice(end + close.length);
    this.#state = 'answer';
    this.#isFresh = true;
  }

  #answer(found: Found, isEnd: boolean): void {
    if (this.#isFresh && !this.#enterAnswer(isEnd)) return;
    const text = this.#close === undefined ? this.#held : this.#beforeClose(this.#close, isEnd);
    this.#held = this.#close === undefined ? '' : this.#held;
    const read = this.#calls?.push(text) ?? { text, calls: [] };
    found.text += read.text;
    found.calls.push(...read.calls);
  }

  /** Takes text off that is certain not to belong to the answer's closing mark or the space around it. */
  #beforeClose(close: string, isEnd: boolean): string {
    const end = this.#held.indexOf(close);
    this.#isClosed ||= end >= 0;
    if (end >= 0) this.#held = this.#held.slice(0, end).trimEnd() + this.#held.slice(end + close.length);
    const rest = this.#isClosed ? this.#held.trimEnd() : this.#held;
    const keep = isEnd ? rest.length : this.#keep(close);
    const text = this.#held.slice(0, keep);
    this.#held = this.#held.slice(keep);
    return text;
  }

  /** Passes space and the answer's own mark; false where more text is needed. */
  #enterAnswer(isEnd: boolean): boolean {
    const mark = this.#style?.answer;
    this.#held = this.#held.trimStart();
    if (this.#held === '' && !isEnd) return false;
    if (mark !== undefined && this.#held.startsWith(mark.open)) {
      this.#held = this.#held.slice(mark.open.length).trimStart();
      this.#close = mark.close;
      if (this.#held === '' && !isEnd) return false;
    } else if (mark?.open.startsWith(this.#held) && !isEnd) return false;
    this.#isFresh = false;
    return true;
  }

  /** Length of the held text that is certain not to belong to `mark` or the space before it. */
  #keep(mark: string): number {
    const length = this.#held.length - markPrefixLength(this.#held, mark);
    return this.#held.slice(0, length).trimEnd().length;
  }
}
