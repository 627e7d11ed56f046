/**
 * JSON's own grammar: values, strings, objects, arrays, and the white space between them, which is limited so that no
 * text consists of it. Rules that json-schema.ts and its parts call by name.
 */
import {
  type CharRange,
  charsOf,
  charsWithout,
  choice,
  EMPTY,
  type Expression,
  MAX_CODE_POINT,
  optional,
  otherChars,
  repeat,
  rule,
  sequence,
  text,
} from './expression.js';

export const JSON_RULES = {
  value: 'json value',
  object: 'json object',
  string: 'json string',
  space: 'json space',
} as const;

/** Digits of a number before and after its point: what a double can tell apart, and an end to every number. */
export const MAX_DIGITS = 16;

/** `member`: the name, the colon and the value. */
export type Property = { name: string; isRequired: boolean; member: Expression };

const SPACE = rule(JSON_RULES.space);
const COMMA = sequence(text(','), SPACE);
export const COLON = sequence(text(':'), SPACE);
const DIGIT: Expression = { kind: 'chars', ranges: [[0x30, 0x39]] };

const SHORT_ESCAPES: readonly (readonly [character: string, escape: string])[] = [
  ['"', '\\"'],
  ['\\', '\\\\'],
  ['\n', '\\n'],
  ['\t', '\\t'],
  ['\r', '\\r'],
  ['\b', '\\b'],
  ['\f', '\\f'],
];
const CONTROL: CharRange = [0, 0x1f];

export function anyJsonRules(): Map<string, Expression> {
  const { value, object, string, space } = JSON_RULES;
  const member = (name: Expression) => sequence(name, COLON, rule(value));
  const list = (entry: Expression) =>
    optional(sequence(entry, repeat(sequence(COMMA, entry), 0, Infinity), SPACE));
  return new Map([
    [
      value,
      choice(
        rule(object),
        sequence(text('['), SPACE, list(rule(value)), text(']')),
        rule(string),
        jsonNumber(),
        ...['true', 'false', 'null'].map(text),
      ),
    ],
    [object, sequence(text('{'), SPACE, list(member(rule(string))), text('}'))],
    [string, quoted(repeat(anyChar(), 0, Infinity))],
    // Nothing, a space, or a new line with what indents it.
    [space, choice(EMPTY, text(' '), sequence(text('\n'), repeat(text(' '), 0, 2 * 32)))],
  ]);
}

export function quoted(body: Expression): Expression {
  return sequence(text('"'), body, text('"'));
}

export function digits(min: number, max: number): Expression {
  return repeat(DIGIT, min, max);
}

/** An integer without leading zeros, without sign. */
export function wholeNumber(): Expression {
  return choice(text('0'), sequence({ kind: 'chars', ranges: [[0x31, 0x39]] }, digits(0, MAX_DIGITS - 1)));
}

export function jsonNumber(): Expression {
  const sign = optional({ kind: 'chars', ranges: charsOf('+-') });
  const exponent = sequence({ kind: 'chars', ranges: charsOf('eE') }, sign, digits(1, 2));
  return sequence(
    optional(text('-')),
    wholeNumber(),
    optional(sequence(text('.'), digits(1, MAX_DIGITS))),
    optional(exponent),
  );
}

/** One character of a string's value, as JSON writes it: as it is or, where it must be, escaped. */
export function jsonChar(ranges: readonly CharRange[]): Expression {
  const raw = charsWithout(ranges, [CONTROL, ...charsOf('"\\')]);
  const holds = (point: number) => ranges.some(([first, last]) => point >= first && point <= last);
  const escapes = SHORT_ESCAPES.filter(([character]) => holds(character.codePointAt(0) ?? 0)).map(
    ([, escaped]) => text(escaped),
  );
  const short = new Set(SHORT_ESCAPES.map(([character]) => character.codePointAt(0)));
  for (let point = 0; point <= CONTROL[1]; point++) {
    if (holds(point) && !short.has(point)) escapes.push(text(`\\u${point.toString(16).padStart(4, '0')}`));
  }
  return choice(...(raw.length > 0 ? [{ kind: 'chars', ranges: raw } as const] : []), ...escapes);
}

/** Any character of a string in any of its spellings, but for surrogates, which are written as the character itself. */
export function anyChar(): Expression {
  const hex = charsOf('0123456789abcdefABCDEF');
  const one = (characters: string): Expression => ({ kind: 'chars', ranges: charsOf(characters) });
  const anyHex: Expression = { kind: 'chars', ranges: hex };
  const escaped = choice(
    one('"\\/bfnrt'),
    sequence(text('u'), { kind: 'chars', ranges: charsWithout(hex, charsOf('dD')) }, repeat(anyHex, 3, 3)),
    sequence(text('u'), one('dD'), one('01234567'), repeat(anyHex, 2, 2)),
  );
  return choice(
    { kind: 'chars', ranges: otherChars([CONTROL, ...charsOf('"\\')]) },
    sequence(text('\\'), escaped),
  );
}

/**
 * An object with these properties in this order and, with `further`, others behind them: by names that none of
 * these has, since a name written twice would replace the first.
 */
export function jsonObject(properties: readonly Property[], further: Expression | undefined): Expression {
  const extra = further && sequence(nameOtherThan(properties), COLON, further);
  // From the last to the first: what may follow when something came before (`after`), and when nothing did.
  const more = extra === undefined ? EMPTY : repeat(sequence(COMMA, extra), 0, Infinity);
  let after: Expression[] = [more, SPACE];
  let first: Expression = extra === undefined ? EMPTY : optional(sequence(extra, ...after));
  for (const { isRequired, member } of [...properties].reverse()) {
    const here = sequence(member, ...after);
    first = isRequired ? here : choice(here, first);
    const another = sequence(COMMA, member);
    after = [isRequired ? another : optional(another), ...after];
  }
  return sequence(text('{'), SPACE, first, text('}'));
}

/** A property name, quoted, without escapes, that is none of these. */
function nameOtherThan(properties: readonly Property[]): Expression {
  const plain = charsWithout([[0x20, MAX_CODE_POINT]], charsOf('"\\'));
  const names = properties.map(({ name }) => [...name]);
  const rest = (taken: readonly string[][], depth: number): Expression => {
    const next = new Map<string, string[][]>();
    for (const name of taken) {
      const character = name[depth];
      if (character !== undefined) next.set(character, [...(next.get(character) ?? []), name]);
    }
    const isTaken = taken.some((name) => name.length === depth);
    const free: Expression = {
      kind: 'chars',
      ranges: charsWithout(plain, charsOf([...next.keys()].join(''))),
    };
    const branches = [...next].map(([character, names]) => sequence(text(character), rest(names, depth + 1)));
    const anything = repeat({ kind: 'chars', ranges: plain }, 0, Infinity);
    return choice(sequence(free, anything), ...branches, ...(isTaken ? [] : [EMPTY]));
  };
  return quoted(rest(names, 0));
}

/** An array that starts with `first`, then holds `rest`; from `min` to `max` entries. */
export function jsonArray(
  first: readonly Expression[],
  rest: Expression | undefined,
  min: number,
  max: number,
): Expression {
  const listed = first.slice(0, max);
  const most = rest === undefined ? 0 : max - listed.length;
  const least = Math.max(0, min - listed.length);
  // Behind the listed entries; with none listed, the first of the rest has no comma before it.
  let tail: Expression = EMPTY;
  if (rest !== undefined && most > 0) {
    if (listed.length > 0) tail = repeat(sequence(COMMA, rest), least, most);
    else {
      const entries = sequence(rest, repeat(sequence(COMMA, rest), Math.max(0, least - 1), most - 1), SPACE);
      tail = least > 0 ? entries : optional(entries);
    }
  }
  let body: Expression = listed.length > 0 ? sequence(tail, SPACE) : tail;
  for (let index = listed.length - 1; index >= 0; index--) {
    const entry = listed[index] ?? EMPTY;
    const here = sequence(...(index > 0 ? [COMMA] : []), entry, body);
    body = index < min ? here : choice(here, index > 0 ? SPACE : EMPTY);
  }
  return sequence(text('['), SPACE, body, text(']'));
}
