/**
 * Regular expressions of ECMAScript (with the u flag's meaning of characters) as grammars. What no grammar of this
 * kind can say is refused: look-around, back-references, word boundaries, property escapes, anchors in the middle.
 * Called by constraint.ts, and by json-schema.ts for `pattern`, there with characters as JSON writes them.
 */
import {
  type CharRange,
  charsOf,
  choice,
  type Expression,
  type Grammar,
  grammarError,
  MAX_CODE_POINT,
  MAX_DEPTH,
  MAX_REPEATS,
  otherChars,
  repeat,
  sequence,
} from './expression.js';

type CharOf = (ranges: readonly CharRange[]) => Expression;

export type ParsedRegex = { body: Expression; isAnchoredAtStart: boolean; isAnchoredAtEnd: boolean };

const DIGITS: CharRange[] = [[0x30, 0x39]];
const WORD: CharRange[] = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const SPACES: CharRange[] = [
  ...charsOf('\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff'),
  [0x2000, 0x200a],
];
const CLASSES: ReadonlyMap<string, readonly CharRange[]> = new Map([
  ['d', DIGITS],
  ['D', otherChars(DIGITS)],
  ['w', WORD],
  ['W', otherChars(WORD)],
  ['s', SPACES],
  ['S', otherChars(SPACES)],
]);
const CONTROLS: ReadonlyMap<string, string> = new Map([
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
  ['v', '\v'],
  ['f', '\f'],
  ['0', '\0'],
]);
const SYNTAX = new Set('^$\\.*+?()[]{}|/-');
const LINE_ENDS = charsOf('\n\r\u2028\u2029');

/** Texts that the pattern matches as a whole. Throws OptionError. */
export function regexGrammar(pattern: string, place: string): Grammar {
  const root = parseRegex(pattern, place, (ranges) => ({ kind: 'chars', ranges })).body;
  return { root, rules: new Map() };
}

/** `charOf` writes a character of the pattern. Throws OptionError. */
export function parseRegex(pattern: string, place: string, charOf: CharOf): ParsedRegex {
  return new RegexParser(pattern, place, charOf).parse();
}

class RegexParser {
  #source: string[];
  #at = 0;
  #place: string;
  #charOf: CharOf;
  #depth = 0;

  constructor(pattern: string, place: string, charOf: CharOf) {
    this.#source = [...pattern];
    this.#place = place;
    this.#charOf = charOf;
  }

  parse(): ParsedRegex {
    const isAnchoredAtStart = this.#take('^');
    const body = this.#alternatives();
    const isAnchoredAtEnd = this.#take('$');
    if (this.#at < this.#source.length) this.#refuse('nothing here', this.#source[this.#at]);
    // "^a|b$" anchors its alternatives one by one.
    if ((isAnchoredAtStart || isAnchoredAtEnd) && body.kind === 'choice' && body.options.length > 1)
      this.#refuse('anchors around a group: ^(?:a|b)$', '^ or $ beside |');
    return { body, isAnchoredAtStart, isAnchoredAtEnd };
  }

  #alternatives(): Expression {
    if (++this.#depth > MAX_DEPTH) this.#refuse(`groups nested at most ${MAX_DEPTH} deep`, 'deeper ones');
    const options = [this.#sequence()];
    while (this.#take('|')) options.push(this.#sequence());
    this.#depth--;
    return choice(...options);
  }

  #sequence(): Expression {
    const parts: Expression[] = [];
    for (let next = this.#peek(); next !== undefined && !'|)$'.includes(next); next = this.#peek())
      parts.push(this.#quantified(this.#atom()));
    return sequence(...parts);
  }

  #quantified(part: Expression): Expression {
    const counts = this.#quantifier();
    if (counts === undefined) return part;
    // A lazy quantifier matches the same texts.
    this.#take('?');
    return repeat(part, ...counts, part.kind === 'chars');
  }

  #quantifier(): [min: number, max: number] | undefined {
    if (this.#take('*')) return [0, Infinity];
    if (this.#take('+')) return [1, Infinity];
    if (this.#take('?')) return [0, 1];
    if (!this.#take('{')) return undefined;
    const counts = /^(\d+)(?:(,)(\d*))?\}/.exec(this.#source.slice(this.#at, this.#at + 32).join(''));
    if (counts === null) this.#refuse('a count such as {2}, {2,} or {2,5}', this.#peek());
    this.#at += counts[0].length;
    const min = Number(counts[1]);
    const max = counts[2] === undefined ? min : counts[3] === '' ? Infinity : Number(counts[3]);
    if (min > max || min > MAX_REPEATS || (max > MAX_REPEATS && max !== Infinity))
      this.#refuse(`counts from 0 to ${MAX_REPEATS} in order`, counts[0]);
    return [min, max];
  }

  #atom(): Expression {
    const character = this.#source[this.#at++] ?? '';
    switch (character) {
      case '(':
        return this.#group();
      case '[':
        return this.#charOf(this.#set());
      case '.':
        return this.#charOf(otherChars(LINE_ENDS));
      case '\\':
        return this.#charOf(this.#escape());
      case '^':
      case '*':
      case '+':
      case '?':
      case '{':
      case '}':
      case ']':
        return this.#refuse('a character to match', character);
      default:
        return this.#charOf(charsOf(character));
    }
  }

  #group(): Expression {
    if (this.#take('?')) {
      const rest = this.#source.slice(this.#at, this.#at + 64).join('');
      const head = /^(?::|<[A-Za-z_$][\w$]*>)/.exec(rest)?.[0];
      if (head === undefined)
        this.#refuse('a group without look-around: (...), (?:...), (?<name>...)', `(?${rest[0]}`);
      this.#at += head.length;
    }
    const body = this.#alternatives();
    if (!this.#take(')')) this.#refuse('a closing )', this.#peek() ?? 'the end');
    return body;
  }

  /** Behind the opening bracket. */
  #set(): CharRange[] {
    const isNegated = this.#take('^');
    const ranges: CharRange[] = [];
    while (!this.#take(']')) {
      const first = this.#setPart();
      const isRange = this.#peek() === '-' && this.#source[this.#at + 1] !== ']';
      if (!isRange) {
        ranges.push(...first);
        continue;
      }
      this.#at++;
      const last = this.#setPart();
      const [from, to] = [first[0]?.[0] ?? 0, last[0]?.[0] ?? 0];
      const single = (part: readonly CharRange[]) => part.length === 1 && part[0]?.[0] === part[0]?.[1];
      if (!single(first) || !single(last) || from > to)
        this.#refuse('a range of two characters in order', 'another');
      ranges.push([from, to]);
    }
    return isNegated ? otherChars(ranges) : ranges;
  }

  #setPart(): readonly CharRange[] {
    const character = this.#source[this.#at++];
    if (character === undefined) return this.#refuse('a closing ]', 'the end');
    if (character !== '\\') return charsOf(character);
    // Inside of a set \b is the backspace.
    return this.#take('b') ? charsOf('\b') : this.#escape();
  }

  /** Behind the backslash. */
  #escape(): readonly CharRange[] {
    const character = this.#source[this.#at++] ?? 'the end';
    const known = CLASSES.get(character);
    if (known !== undefined) return known;
    const control = CONTROLS.get(character);
    if (control !== undefined && !(character === '0' && /\d/.test(this.#peek() ?? '')))
      return charsOf(control);
    if (SYNTAX.has(character)) return charsOf(character);
    if (character === 'x' || character === 'u') return this.#codePoint(character);
    return this.#refuse('an escape that names characters', `\\${character}`);
  }

  #codePoint(kind: 'x' | 'u'): CharRange[] {
    const rest = this.#source.slice(this.#at, this.#at + 16).join('');
    const digits = (kind === 'x' ? /^[0-9a-fA-F]{2}/ : /^(?:[0-9a-fA-F]{4}|\{[0-9a-fA-F]{1,6}\})/).exec(
      rest,
    )?.[0];
    const point = Number.parseInt(digits?.replace('{', '') ?? '', 16);
    if (digits === undefined || point > MAX_CODE_POINT || (point >= 0xd800 && point <= 0xdfff))
      return this.#refuse('a character such as \\x41, \\u0041 or \\u{1F600}', `\\${kind}${rest.slice(0, 8)}`);
    this.#at += digits.length;
    return [[point, point]];
  }

  #peek(): string | undefined {
    return this.#source[this.#at];
  }

  #take(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#at++;
    return true;
  }

  #refuse(expected: string, got: unknown): never {
    throw grammarError(`${this.#place} (at character ${this.#at})`, expected, got);
  }
}
