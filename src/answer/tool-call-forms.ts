/**
 * What stands between the marks of tool calls, by form: JSON, or tags of a model family's own. Called by tool-calls.ts
 * with whole texts; knows nothing of streams. A text that is not exactly of the form gives undefined, never part of it.
 */
import type { MarkedCallKind } from '../model/tool-call-style.js';
import { typedValue } from './tool-arguments.js';

/** A function that the request offers. */
export type OfferedFunction = { name: string; parameters?: Record<string, unknown> | undefined };

/** `arguments`: JSON as the model wrote it, or the value that its tags hold. */
export type ReadCall = { name: string; arguments: string };

type Offered = ReadonlyMap<string, OfferedFunction>;

/** The calls of one marked section; undefined where it is not of the form, or calls what nobody offers. */
export function readCalls(
  kind: MarkedCallKind | 'list',
  body: string,
  offered: Offered,
): ReadCall[] | undefined {
  const calls = READERS[kind](body, offered);
  return calls?.length && calls.every(({ name }) => offered.has(name)) ? calls : undefined;
}

type Reader = (body: string, offered: Offered) => ReadCall[] | undefined;

const READERS: Record<MarkedCallKind | 'list', Reader> = {
  tagged: jsonCalls,
  list: jsonCalls,
  'arg-tags': argTagCalls,
  'function-tags': functionTagCalls,
  'invoke-tags': invokeTagCalls,
  deepseek: deepseekCalls,
  kimi: kimiCalls,
};

/** One object with name and arguments, or a list of such. */
function jsonCalls(body: string): ReadCall[] | undefined {
  const value = parsedJson(body);
  const calls = (Array.isArray(value) ? value : [value]).map(jsonCall);
  return calls.every((call) => call !== undefined) ? calls : undefined;
}

function jsonCall(entry: unknown): ReadCall | undefined {
  if (typeof entry !== 'object' || entry === null) return undefined;
  const { name, arguments: given = {} } = entry as { name?: unknown; arguments?: unknown };
  if (typeof name !== 'string') return undefined;
  return { name, arguments: typeof given === 'string' ? given : JSON.stringify(given) };
}

function argTagCalls(body: string, offered: Offered): ReadCall[] | undefined {
  const scan = new Scanner(body);
  const name = scan.until('<arg_key>') ?? scan.rest();
  const values: [string, string][] = [];
  while (!scan.isDone) {
    const key = scan.between('<arg_key>', '</arg_key>');
    const value = scan.between('<arg_value>', '</arg_value>');
    if (key === undefined || value === undefined) return undefined;
    values.push([key.trim(), value]);
  }
  return [taggedCall(name.trim(), values, offered)];
}

function functionTagCalls(body: string, offered: Offered): ReadCall[] | undefined {
  return nestedTags(body, offered, ['<function=', '</function>', '<parameter=']);
}

function invokeTagCalls(body: string, offered: Offered): ReadCall[] | undefined {
  return nestedTags(body, offered, ['<invoke name=', '</invoke>', '<parameter name=']);
}

/** Tags that hold a name up to `>`, with such tags of parameters inside. */
function nestedTags(
  body: string,
  offered: Offered,
  [open, close, parameter]: readonly [string, string, string],
): ReadCall[] | undefined {
  const scan = new Scanner(body);
  const calls: ReadCall[] = [];
  while (!scan.isDone) {
    const name = scan.between(open, '>');
    if (name === undefined) return undefined;
    const values: [string, string][] = [];
    while (!scan.take(close)) {
      const key = scan.between(parameter, '>');
      const value = key === undefined ? undefined : scan.until('</parameter>');
      if (key === undefined || value === undefined) return undefined;
      scan.take('</parameter>');
      values.push([unquoted(key), withoutOwnLines(value)]);
    }
    calls.push(taggedCall(unquoted(name), values, offered));
  }
  return calls;
}

/** `function SEP NAME`, then a fenced block of JSON (V3, R1), or `NAME SEP JSON` (V3.1). */
function deepseekCalls(body: string): ReadCall[] | undefined {
  return sections(body, '<｜tool▁call▁begin｜>', '<｜tool▁sep｜>', '<｜tool▁call▁end｜>', (head, text) => {
    const fenced = /^([^\n]*)\n```json\n([\s\S]*?)\n?```\s*$/.exec(text);
    if (fenced === null) return [head.trim(), text];
    return [(fenced[1] ?? '').trim(), fenced[2] ?? ''];
  });
}

function kimiCalls(body: string): ReadCall[] | undefined {
  const marks = ['<|tool_call_begin|>', '<|tool_call_argument_begin|>', '<|tool_call_end|>'] as const;
  return sections(body, ...marks, (head, text) => {
    const name = /^\s*(?:functions\.)?(.+?):\d+\s*$/.exec(head)?.[1];
    return name === undefined ? undefined : [name, text];
  });
}

/** Calls whose arguments are JSON, each between marks and with a separator; the last mark may be missing at the end. */
function sections(
  body: string,
  open: string,
  separator: string,
  close: string,
  read: (head: string, text: string) => [name: string, json: string] | undefined,
): ReadCall[] | undefined {
  const scan = new Scanner(body);
  const calls: ReadCall[] = [];
  while (!scan.isDone) {
    const head = scan.between(open, separator);
    const text = head === undefined ? undefined : (scan.until(close) ?? scan.rest());
    if (head === undefined || text === undefined) return undefined;
    scan.take(close);
    const [name, json] = read(head, text) ?? [];
    if (name === undefined || json === undefined || !isJsonObject(json)) return undefined;
    calls.push({ name, arguments: json.trim() });
  }
  return calls;
}

function taggedCall(name: string, values: readonly [string, string][], offered: Offered): ReadCall {
  const { parameters } = offered.get(name) ?? {};
  const entries = values.map(([key, value]) => [key, typedValue(value, key, parameters)] as const);
  return { name, arguments: JSON.stringify(Object.fromEntries(entries)) };
}

/** Goes through a text once, from mark to mark; space before a mark says nothing. */
class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get isDone(): boolean {
    return this.#afterSpace() >= this.#text.length;
  }

  /** Passes this mark, where it is next. */
  take(mark: string): boolean {
    const at = this.#afterSpace();
    if (!this.#text.startsWith(mark, at)) return false;
    this.#at = at + mark.length;
    return true;
  }

  /** The text up to a mark, which stays; undefined where it does not come. */
  until(mark: string): string | undefined {
    const end = this.#text.indexOf(mark, this.#at);
    return end < 0 ? undefined : this.#cut(end);
  }

  rest(): string {
    return this.#cut(this.#text.length);
  }

  /** What stands between two marks, the first of which must be next. */
  between(open: string, close: string): string | undefined {
    const text = this.take(open) ? this.until(close) : undefined;
    if (text !== undefined) this.#at += close.length;
    return text;
  }

  #cut(end: number): string {
    const text = this.#text.slice(this.#at, end);
    this.#at = end;
    return text;
  }

  #afterSpace(): number {
    let at = this.#at;
    while (/\s/.test(this.#text[at] ?? '')) at++;
    return at;
  }
}

/** What arguments must be. */
export function isJsonObject(text: string): boolean {
  const value = parsedJson(text);
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Undefined where it is not JSON. */
function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Templates put a value on lines of its own. */
function withoutOwnLines(value: string): string {
  return value.replace(/^\r?\n/, '').replace(/\r?\n$/, '');
}

function unquoted(text: string): string {
  return text.trim().replace(/^(["'])(.*)\1$/s, '$2');
}
