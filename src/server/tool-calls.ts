/**
 * Finds tool calls in an answer's text as it comes: what is text goes on at once, what may be the beginning of a call is
 * held back until that is known, what turns out to be no call is text after all. Used by chat.ts for requests with
 * tools.
 */
import { randomBytes } from 'node:crypto';
import type { ToolCallStyle } from '../model/tool-call-style.js';

export type ToolCall = { id: string; type: 'function'; function: { name: string; arguments: string } };

/** Text and calls that became certain, in this order. */
export type Found = { text: string; calls: ToolCall[] };

export class ToolCallReader {
  readonly #style: ToolCallStyle;
  readonly #names: ReadonlySet<string>;
  #held = '';
  #inCall = false;

  /** `names`: functions that the request offers; a call of anything else is text. */
  constructor(style: ToolCallStyle, names: readonly string[]) {
    this.#style = style;
    this.#names = new Set(names);
  }

  push(part: string): Found {
    this.#held += part;
    const found: Found = { text: '', calls: [] };
    while (this.#advance(found));
    return found;
  }

  /** What was held back when the answer ended. */
  end(): Found {
    const found: Found = { text: '', calls: [] };
    // The marker of a list may be a special token, which is not part of the text; a list has no closing mark either.
    const calls = this.#style.kind === 'list' ? this.#callsOf(this.#unmarked(this.#held)) : undefined;
    if (calls === undefined) found.text = this.#held;
    else found.calls = calls;
    this.#held = '';
    return found;
  }

  /** Takes one piece off the held text; false where more text is needed. */
  #advance(found: Found): boolean {
    const { open } = this.#style;
    if (!this.#inCall) {
      const at = this.#beginning();
      if (at < 0) {
        const keep = this.#heldLength();
        found.text += this.#held.slice(0, this.#held.length - keep);
        this.#held = this.#held.slice(this.#held.length - keep);
        return false;
      }
      // Space between text and call, or between calls, is the template's.
      found.text += this.#held.slice(0, at).trimEnd();
      this.#held = this.#held.slice(at);
      this.#inCall = true;
      return true;
    }
    if (this.#style.kind === 'list') return false;
    const end = this.#held.indexOf(this.#style.close);
    if (end < 0) return false;
    const whole = this.#held.slice(0, end + this.#style.close.length);
    this.#held = this.#held.slice(whole.length);
    this.#inCall = false;
    const calls = this.#callsOf(whole.slice(open.length, end));
    if (calls === undefined) found.text += whole;
    else found.calls.push(...calls);
    return this.#held !== '';
  }

  /** Where a call begins in the held text, or -1. */
  #beginning(): number {
    const at = this.#held.indexOf(this.#style.open);
    if (at >= 0 || this.#style.kind === 'tagged') return at;
    return /^\s*\[\s*\{\s*"/.test(this.#held) ? 0 : -1;
  }

  /** Length of the end of the held text that may still become the beginning of a call. */
  #heldLength(): number {
    const { open, kind } = this.#style;
    if (kind === 'list' && /^\s*(\[\s*(\{\s*)?)?$/.test(this.#held)) return this.#held.length;
    const space = this.#held.length - this.#held.trimEnd().length;
    for (let length = Math.min(open.length - 1, this.#held.length); length > 0; length--) {
      if (!this.#held.endsWith(open.slice(0, length))) continue;
      const before = this.#held.slice(0, this.#held.length - length);
      return length + before.length - before.trimEnd().length;
    }
    return space;
  }

  #unmarked(text: string): string {
    const trimmed = text.trim();
    return trimmed.startsWith(this.#style.open) ? trimmed.slice(this.#style.open.length) : trimmed;
  }

  /** The calls that a JSON text holds; undefined where it is not JSON or not calls of offered functions. */
  #callsOf(json: string): ToolCall[] | undefined {
    let value: unknown;
    try {
      value = JSON.parse(json);
    } catch {
      return undefined;
    }
    const entries = Array.isArray(value) ? value : [value];
    const calls = entries.map((entry) => this.#callOf(entry));
    return calls.length > 0 && calls.every((call) => call !== undefined) ? calls : undefined;
  }

  #callOf(entry: unknown): ToolCall | undefined {
    if (typeof entry !== 'object' || entry === null) return undefined;
    const { name, arguments: given = {} } = entry as { name?: unknown; arguments?: unknown };
    if (typeof name !== 'string' || !this.#names.has(name)) return undefined;
    const text = typeof given === 'string' ? given : JSON.stringify(given);
    const id = `call_${randomBytes(12).toString('hex')}`;
    return { id, type: 'function', function: { name, arguments: text } };
  }
}
