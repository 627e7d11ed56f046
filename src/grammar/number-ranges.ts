/**
 * Numbers of a JSON schema between bounds, digit by digit: integers exactly, other numbers as those whose integer part
 * leaves room for any digits behind the point. Called by json-schema.ts.
 */
import { choice, type Expression, grammarError, optional, sequence, text } from './expression.js';
import { digits, jsonNumber, wholeNumber } from './json-text.js';
import type { Schema } from './schema-keywords.js';

/** Few enough that no double rounds up to the next integer. */
const FRACTION_DIGITS = 6;
const MOST_WITH_FRACTION = 1e9;

type Bounds = { min: number; max: number; isMinOpen: boolean; isMaxOpen: boolean };

/** Throws OptionError. */
export function integerBetween(schema: Schema, place: string): Expression {
  const { min, max, isMinOpen, isMaxOpen } = boundsOf(schema, place);
  if (min === -Infinity && max === Infinity) return sequence(optional(text('-')), wholeNumber());
  const least = isMinOpen && Number.isInteger(min) ? min + 1 : Math.ceil(min);
  const most = isMaxOpen && Number.isInteger(max) ? max - 1 : Math.floor(max);
  if (least > most) throw grammarError(place, 'bounds with an integer between them', `${min} to ${max}`);
  return integers(least, most);
}

/** Throws OptionError. */
export function numberBetween(schema: Schema, place: string): Expression {
  const { min, max, isMinOpen, isMaxOpen } = boundsOf(schema, place);
  if (schema.multipleOf !== undefined) return integerBetween(schema, place);
  if (min === -Infinity && max === Infinity) return jsonNumber();
  const least = isMinOpen && Number.isInteger(min) ? min + 1 : Math.ceil(min);
  const most = isMaxOpen && Number.isInteger(max) ? max - 1 : Math.floor(max);
  const isExact = least <= Number.MAX_SAFE_INTEGER && most >= -Number.MAX_SAFE_INTEGER;
  const options = least <= most && isExact ? [integers(least, most)] : [];
  // i.ddd lies from i to below i + 1, and -i.ddd from above -i - 1 to -i; both ends must be allowed.
  options.push(...withFraction(Math.max(0, least), Math.floor(max) - 1));
  for (const negative of withFraction(Math.max(0, -most), -Math.ceil(min) - 1))
    options.push(sequence(text('-'), negative));
  // Right beside a bound that is itself excluded.
  const digit = (first: string): Expression => ({ kind: 'chars', ranges: [[first.charCodeAt(0), 0x39]] });
  const some = sequence(text('.'), digits(0, FRACTION_DIGITS - 1), digit('1'));
  if (isMinOpen && Number.isInteger(min) && min >= 0 && min + 1 <= Math.min(max, MOST_WITH_FRACTION))
    options.push(sequence(text(`${min}`), some));
  if (isMaxOpen && Number.isInteger(max) && max <= 0 && max - 1 >= Math.max(min, -MOST_WITH_FRACTION))
    options.push(sequence(text(`-${-max}`), some));
  if (options.length === 0)
    throw grammarError(place, 'bounds with an integer between them', `${min} to ${max}`, 'Widen the bounds.');
  return choice(...options);
}

/** Numbers with digits behind the point whose integer part is from `least` to `most`, both >= 0; none: []. */
function withFraction(least: number, most: number): Expression[] {
  const top = Math.min(most, MOST_WITH_FRACTION);
  return least > top ? [] : [sequence(naturals(least, top), text('.'), digits(1, FRACTION_DIGITS))];
}

function boundsOf(schema: Schema, place: string): Bounds {
  const bound = (name: string, otherwise: number) => {
    const value = schema[name];
    if (value === undefined) return otherwise;
    if (typeof value !== 'number' || !Number.isFinite(value))
      throw grammarError(`${place}.${name}`, 'a number', value);
    return value;
  };
  if (schema.multipleOf !== undefined && schema.multipleOf !== 1)
    throw grammarError(`${place}.multipleOf`, '1', schema.multipleOf);
  const [min, above] = [bound('minimum', -Infinity), bound('exclusiveMinimum', -Infinity)];
  const [max, below] = [bound('maximum', Infinity), bound('exclusiveMaximum', Infinity)];
  return {
    min: Math.max(min, above),
    max: Math.min(max, below),
    isMinOpen: above >= min,
    isMaxOpen: below <= max,
  };
}

/** Integers from `least` to `most`, both included. */
function integers(least: number, most: number): Expression {
  const options: Expression[] = [];
  if (most >= 0) options.push(naturals(Math.max(0, least), most));
  // "-0" is left out.
  if (least < 0) options.push(sequence(text('-'), naturals(Math.max(1, -most), -least)));
  return choice(...options);
}

/** Integers from `least` >= 0 to `most`, below 2^53. */
function naturals(least: number, most: number): Expression {
  const top = BigInt(Math.min(most, Number.MAX_SAFE_INTEGER));
  const options: Expression[] = [];
  for (let from = BigInt(least); from <= top; ) {
    const length = from.toString().length;
    const last = 10n ** BigInt(length) - 1n;
    const to = last < top ? last : top;
    options.push(sameLength(from.toString(), to.toString()));
    from = to + 1n;
  }
  return choice(...options);
}

/** Digit strings of one length between two of that length. */
function sameLength(from: string, to: string): Expression {
  const [low = '0', high = '0'] = [from[0], to[0]];
  const [lowRest, highRest] = [from.slice(1), to.slice(1)];
  const range = (first: string, last: string): Expression => ({
    kind: 'chars',
    ranges: [[first.charCodeAt(0), last.charCodeAt(0)]],
  });
  if (lowRest === '') return range(low, high);
  const isWhole = /^0*$/.test(lowRest) && /^9*$/.test(highRest);
  if (isWhole) return sequence(range(low, high), digits(lowRest.length, lowRest.length));
  if (low === high) return sequence(text(low), sameLength(lowRest, highRest));
  const [zeros, nines] = [lowRest.replace(/./g, '0'), lowRest.replace(/./g, '9')];
  const options = [
    sequence(text(low), sameLength(lowRest, nines)),
    sequence(text(high), sameLength(zeros, highRest)),
  ];
  const [second, beforeLast] = [Number(low) + 1, Number(high) - 1];
  if (second <= beforeLast)
    options.push(sequence(range(`${second}`, `${beforeLast}`), digits(lowRest.length, lowRest.length)));
  return choice(...options);
}
