/**
 * Reads answers in gpt-oss' harmony form as they come: messages in channels. `analysis` is reasoning, `final` is the
 * answer, `commentary` without a recipient is text for the user, a message to `functions.NAME` is a tool call. Needs the
 * special tokens in the text. Made by answer-reader.ts.
 */
import type { AnswerReader, Found } from './answer-parts.js';
import { isJsonObject, type OfferedFunction } from './tool-call-forms.js';
import { markPrefixLength, toolCall } from './tool-calls.js';

/** Begin a header, end a header, end a message. `<|constrain|>` is part of a header. */
const OPENINGS = ['<|start|>', '<|channel|>'] as const;
const MESSAGE = '<|message|>';
const ENDINGS = ['<|end|>', '<|call|>', '<|return|>'] as const;
const MARKS = [...OPENINGS, MESSAGE, ...ENDINGS];
/** A header is a role, a channel, a recipient and a type; what is longer is none. */
const LONGEST_HEADER = 256;

type Target = { kind: 'reasoning' | 'text' } | { kind: 'call'; name: string };

export class HarmonyReader implements AnswerReader {
  readonly #offered: ReadonlyMap<string, OfferedFunction>;
  #held = '';
  /** The header so far; undefined inside of a message. The prompt ends with the opening of the first header. */
  #header: string | undefined = '';
  /** A mark opened the header, so that what stands in it is no text. */
  #isMarked = false;
  #target: Target = { kind: 'text' };
  #arguments = '';

  constructor(offered: ReadonlyMap<string, OfferedFunction>) {
    this.#offered = offered;
  }

  push(part: string): Found {
    this.#held += part;
    const found: Found = { reasoning: '', text: '', calls: [] };
    for (;;) {
      const { at, mark } = nextMark(this.#held);
      if (mark === undefined) break;
      this.#take(found, this.#held.slice(0, at));
      this.#held = this.#held.slice(at + mark.length);
      this.#pass(found, mark);
    }
    const keep = Math.max(...MARKS.map((mark) => markPrefixLength(this.#held, mark)));
    this.#take(found, this.#held.slice(0, this.#held.length - keep));
    this.#held = this.#held.slice(this.#held.length - keep);
    return found;
  }

  /** What was held back when the answer ended; the token that ends a call is no part of the text. */
  end(): Found {
    const found: Found = { reasoning: '', text: '', calls: [] };
    this.#take(found, this.#held);
    this.#held = '';
    if (!this.#isMarked) found.text += this.#header ?? '';
    this.#close(found);
    return found;
  }

  #take(found: Found, text: string): void {
    if (this.#header !== undefined) this.#header += text;
    else if (this.#target.kind === 'call') this.#arguments += text;
    else found[this.#target.kind] += text;
    if (this.#header === undefined || isHeader(this.#header)) return;
    // The model wrote no header: what it wrote is the answer.
    found.text += this.#header;
    this.#header = undefined;
    this.#target = { kind: 'text' };
  }

  #pass(found: Found, mark: (typeof MARKS)[number]): void {
    if (mark === MESSAGE) {
      if (this.#header !== undefined) this.#target = this.#targetOf(this.#header);
      this.#header = undefined;
      return;
    }
    if (this.#header === undefined) this.#close(found);
    const before = mark === '<|channel|>' ? (this.#header ?? '') + mark : '';
    this.#header = before;
    this.#isMarked = mark === '<|start|>' || mark === '<|channel|>';
  }

  #targetOf(header: string): Target {
    const name = /\bto=functions\.([\w.-]+)/.exec(header)?.[1];
    if (name !== undefined) return { kind: 'call', name };
    return { kind: /<\|channel\|>\s*analysis\b/.test(header) ? 'reasoning' : 'text' };
  }

  /** The message is over: a call is one now, or text after all. */
  #close(found: Found): void {
    if (this.#target.kind === 'call') {
      const given = this.#arguments.trim() === '' ? '{}' : this.#arguments;
      if (this.#offered.has(this.#target.name) && isJsonObject(given))
        found.calls.push(toolCall({ name: this.#target.name, arguments: given }));
      else found.text += this.#arguments;
    }
    this.#arguments = '';
    this.#target = { kind: 'text' };
    this.#header = undefined;
  }
}

function nextMark(text: string): { at: number; mark: (typeof MARKS)[number] | undefined } {
  let first: { at: number; mark: (typeof MARKS)[number] | undefined } = { at: -1, mark: undefined };
  for (const mark of MARKS) {
    const at = text.indexOf(mark);
    if (at >= 0 && (first.mark === undefined || at < first.at)) first = { at, mark };
  }
  return first;
}

/** Whether this may be a header, or the beginning of one: a role or recipient, then the channel. */
function isHeader(text: string): boolean {
  if (text.length > LONGEST_HEADER) return false;
  const [before = ''] = text.split('<|channel|>');
  return /^\s*(a(s(s(i(s(t(a(n(t)?)?)?)?)?)?)?)?)?\s*(t(o(=[\w.-]*)?)?)?\s*$/.test(before);
}
