/**
 * Rules that values of options are checked by: what is expected, in words, and whether a value holds. Used by
 * options.ts, which says which option has which rule. Knows no option itself.
 */
import { OptionError } from '../errors.js';

export type Check = { expected: string; holds: (value: unknown) => boolean };

export const integer = (min: number, max = Number.MAX_SAFE_INTEGER): Check => ({
  expected: max === Number.MAX_SAFE_INTEGER ? `an integer >= ${min}` : `an integer from ${min} to ${max}`,
  holds: (value) => Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max,
});
export const number = (expected: string, holds: (value: number) => boolean): Check => ({
  expected,
  holds: (value) => typeof value === 'number' && holds(value),
});
export const oneOf = (...names: string[]): Check => ({
  expected: `one of ${names.map((name) => `"${name}"`).join(', ')}`,
  holds: (value) => typeof value === 'string' && names.includes(value),
});
export const text: Check = {
  expected: 'a non-empty string',
  holds: (value) => typeof value === 'string' && value !== '',
};
export const flag: Check = { expected: 'true or false', holds: (value) => typeof value === 'boolean' };
export const callback: Check = { expected: 'a function', holds: (value) => typeof value === 'function' };
export const abortSignal: Check = {
  expected: 'an AbortSignal',
  holds: (value) => value instanceof AbortSignal,
};

export const plainObject: Check = {
  expected: 'an object',
  holds: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
};
/** Throws OptionError for values that a rule refuses and for names that have none. `undefined` is no value. */
export function check(options: object, checks: Record<string, Check>): void {
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(checks, name)) {
      throw new OptionError(name, `one of ${Object.keys(checks).join(', ')}`, name);
    }
    const rule = checks[name];
    if (value === undefined || rule === undefined) continue;
    if (!rule.holds(value)) throw new OptionError(name, rule.expected, value);
  }
}
