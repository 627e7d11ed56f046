/**
 * What a grammar is made of: expressions over Unicode text and named rules that may refer to each other. json-schema.ts
 * and regex.ts write them, graph.ts compiles them. Plain data; knows nothing of tokens.
 */
import { OptionError } from '../errors.js';

/** Code points from first to last. */
export type CharRange = readonly [first: number, last: number];

export type Expression =
  /** One character. */
  | { kind: 'chars'; ranges: readonly CharRange[] }
  | { kind: 'text'; text: string }
  /** A special token, which no text spells. */
  | { kind: 'special'; text: string }
  | { kind: 'sequence'; parts: readonly Expression[] }
  | { kind: 'choice'; options: readonly Expression[] }
  /** `isChar`: each repetition is one character of the text that is meant, so that lengths count characters. */
  | { kind: 'repeat'; part: Expression; min: number; max: number; isChar?: boolean }
  | { kind: 'rule'; name: string };

export type Grammar = { root: Expression; rules: ReadonlyMap<string, Expression> };

export const MAX_CODE_POINT = 0x10ffff;
/** Nesting that schemas, patterns and generated texts may reach. */
export const MAX_DEPTH = 64;
/** Largest count in a repetition that is written out. */
export const MAX_REPEATS = 10_000;

export const EMPTY: Expression = { kind: 'sequence', parts: [] };

export function text(value: string): Expression {
  return { kind: 'text', text: value };
}

export function special(value: string): Expression {
  return { kind: 'special', text: value };
}

/** Stands around the text of a special token among the bytes of texts: UTF-8 has no such byte. */
export const SPECIAL_BYTE = 0xff;

export function specialBytes(value: string): Uint8Array {
  return Uint8Array.of(SPECIAL_BYTE, ...new TextEncoder().encode(value), SPECIAL_BYTE);
}

export function sequence(...parts: readonly Expression[]): Expression {
  return { kind: 'sequence', parts };
}

export function choice(...options: readonly Expression[]): Expression {
  const [only] = options;
  return options.length === 1 && only !== undefined ? only : { kind: 'choice', options };
}

export function repeat(part: Expression, min: number, max: number, isChar = false): Expression {
  return { kind: 'repeat', part, min, max, isChar };
}

export function optional(part: Expression): Expression {
  return repeat(part, 0, 1);
}

export function rule(name: string): Expression {
  return { kind: 'rule', name };
}

/** Characters named in a string, as ranges. */
export function charsOf(characters: string): CharRange[] {
  return [...characters].map((character) => {
    const point = character.codePointAt(0) ?? 0;
    return [point, point] as const;
  });
}

/** Sorted, without overlaps. */
export function normalRanges(ranges: readonly CharRange[]): CharRange[] {
  const sorted = [...ranges].sort((a, b) => a[0] - b[0]);
  const merged: [number, number][] = [];
  for (const [first, last] of sorted) {
    const previous = merged.at(-1);
    if (previous !== undefined && first <= previous[1] + 1) previous[1] = Math.max(previous[1], last);
    else merged.push([first, last]);
  }
  return merged;
}

/** All characters but these. */
export function otherChars(ranges: readonly CharRange[]): CharRange[] {
  const others: CharRange[] = [];
  let next = 0;
  for (const [first, last] of normalRanges(ranges)) {
    if (first > next) others.push([next, first - 1]);
    next = last + 1;
  }
  if (next <= MAX_CODE_POINT) others.push([next, MAX_CODE_POINT]);
  return others;
}

/** Characters of `ranges` that are not in `without`. */
export function charsWithout(ranges: readonly CharRange[], without: readonly CharRange[]): CharRange[] {
  return otherChars([...otherChars(ranges), ...without]);
}

/** A grammar that cannot be had: names the place in the schema or pattern. */
export function grammarError(place: string, expected: string, got: unknown, hint = ''): OptionError {
  return new OptionError(place, expected, got, { hint });
}
