/**
 * Finds tool calls in an answer's text as it comes: what is text goes on at once, what may be the beginning of a call is
 * held back until that is known, what turns out to be no call is text after all. Used by answer-reader.ts for requests
 * with tools; tool-call-forms.ts reads what stands between the marks.
 */
import { randomBytes } from 'node:crypto';
import type { ToolCallStyle } from '../model/tool-call-style.js';
import { type OfferedFunction, type ReadCall, readCalls } from './tool-call-forms.js';

export type ToolCall = { id: string; type: 'function'; function: { name: string; arguments: string } };

/** Text and calls that became certain, in this order. */
export type TextAndCalls = { text: string; calls: ToolCall[] };

export class ToolCallReader {
  readonly #style: Exclude<ToolCallStyle, { kind: 'harmony' }>;
  readonly #offered: ReadonlyMap<string, OfferedFunction>;
  #held = '';
  /** Space before what is held: the template's where a call follows, else text. */
  #space = '';
  #inCall = false;

  /** `offered`: functions of the request; a call of anything else is text. */
  constructor(
    style: Exclude<ToolCallStyle, { kind: 'harmony' }>,
    offered: ReadonlyMap<string, OfferedFunction>,
  ) {
    this.#style = style;
    this.#offered = offered;
  }

  push(part: string): TextAndCalls {
    this.#held += part;
    const found: TextAndCalls = { text: '', calls: [] };
    while (this.#advance(found));
    return found;
  }

  /** What was held back when the answer ended. */
  end(): TextAndCalls {
    const found: TextAndCalls = { text: '', calls: [] };
    this.#settle(found, this.#held, this.#lastCalls());
    this.#held = '';
    return found;
  }

  /** The calls of a section that the end of the answer closes. */
  #lastCalls(): ReadCall[] | undefined {
    const { kind, open } = this.#style;
    const text = this.#held.trim();
    const body = text.startsWith(open) ? text.slice(open.length) : text;
    // The marker of a list may be a special token, which is not part of the text; a list has no closing mark either.
    if (kind === 'list') return readCalls(kind, body, this.#offered);
    // Sections of several calls may lack their own end; a single call without its end was cut short.
    const isSection = kind === 'deepseek' || kind === 'kimi' || kind === 'invoke-tags';
    return this.#inCall && isSection ? readCalls(kind, body, this.#offered) : undefined;
  }

  /** Takes one piece off the held text; false where more text is needed. */
  #advance(found: TextAndCalls): boolean {
    const { kind, open } = this.#style;
    if (!this.#inCall) return this.#enter(found);
    if (kind === 'list') return false;
    const { close } = this.#style;
    const end = this.#held.indexOf(close);
    if (end < 0) return false;
    const whole = this.#held.slice(0, end + close.length);
    this.#held = this.#held.slice(whole.length);
    this.#inCall = false;
    this.#settle(found, whole, readCalls(kind, whole.slice(open.length, end), this.#offered));
    return this.#held !== '';
  }

  /** Gives text up to where a call begins, or may begin. */
  #enter(found: TextAndCalls): boolean {
    const at = this.#beginning();
    const certain = at < 0 ? this.#held.length - this.#heldLength() : at;
    const text = this.#space + this.#held.slice(0, certain);
    const kept = text.trimEnd().length;
    found.text += text.slice(0, kept);
    this.#space = text.slice(kept);
    this.#held = this.#held.slice(certain);
    this.#inCall = at >= 0;
    return this.#inCall;
  }

  /** A piece that is calls, or text after all. */
  #settle(found: TextAndCalls, piece: string, calls: ReadCall[] | undefined): void {
    if (calls === undefined) found.text += this.#space + piece;
    else found.calls.push(...calls.map(toolCall));
    this.#space = '';
  }

  /** Where a call begins in the held text, or -1. */
  #beginning(): number {
    const at = this.#held.indexOf(this.#style.open);
    if (at >= 0 || this.#style.kind !== 'list') return at;
    return /^\s*\[\s*\{\s*"/.test(this.#held) ? 0 : -1;
  }

  /** Length of the end of the held text that may still become the beginning of a call. */
  #heldLength(): number {
    const { open, kind } = this.#style;
    if (kind === 'list' && /^\s*(\[\s*(\{\s*)?)?$/.test(this.#held)) return this.#held.length;
    return markPrefixLength(this.#held, open);
  }
}

/** Length of the longest end of a text that begins a mark without being all of it. */
export function markPrefixLength(text: string, mark: string): number {
  for (let length = Math.min(mark.length - 1, text.length); length > 0; length--)
    if (text.endsWith(mark.slice(0, length))) return length;
  return 0;
}

/** A call as OpenAI's API tells it. */
export function toolCall({ name, arguments: given }: ReadCall): ToolCall {
  const id = `call_${randomBytes(12).toString('hex')}`;
  return { id, type: 'function', function: { name, arguments: given } };
}
