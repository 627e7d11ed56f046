/** Strings of a JSON schema: lengths, patterns and the formats that have one here. Called by json-schema.ts. */
import { type Expression, grammarError, MAX_CODE_POINT, repeat, rule } from './expression.js';
import { anyChar, JSON_RULES, jsonChar, quoted } from './json-text.js';
import { parseRegex } from './regex.js';
import { countOf, type Schema } from './schema-keywords.js';

const DAY = '(0[1-9]|1[0-9]|2[0-8])';
/** Every day that every month of every year has, and the days that only some have. */
const DATE = `[0-9]{4}-((0[1-9]|1[0-2])-${DAY}|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)`;
const TIME = '([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])';
const BYTE = '(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
const NAME = '[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?';
/** Whole strings, as ECMAScript patterns; all that they match has the format, not all that has it is matched. */
const FORMATS: ReadonlyMap<string, string> = new Map([
  ['date', DATE],
  ['time', TIME],
  ['date-time', `${DATE}T${TIME}`],
  ['uuid', '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'],
  ['ipv4', `(${BYTE}\\.){3}${BYTE}`],
  ['email', `[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,16}){0,2}@(${NAME}\\.){1,3}[A-Za-z]{2,12}`],
]);

/** The quoted string. Throws OptionError. */
export function stringOf(schema: Schema, place: string): Expression {
  const min = countOf(schema, 'minLength', place, 0);
  const max = countOf(schema, 'maxLength', place, Infinity);
  if (min > max) throw grammarError(`${place}.minLength`, `at most maxLength (${max})`, min);
  const isSized = min > 0 || max < Infinity;
  const { pattern, format } = schema;
  const formatPattern = typeof format === 'string' ? FORMATS.get(format) : undefined;
  if (pattern !== undefined && (isSized || formatPattern !== undefined))
    throw grammarError(`${place}.pattern`, 'no minLength, maxLength or known format beside it', pattern);
  if (pattern !== undefined) return searched(pattern, `${place}.pattern`);
  if (formatPattern !== undefined && isSized)
    throw grammarError(`${place}.format`, 'no minLength or maxLength beside it', format);
  if (formatPattern !== undefined) return quoted(parseRegex(formatPattern, place, jsonChar).body);
  if (!isSized) return rule(JSON_RULES.string);
  return quoted(repeat(anyChar(), min, max, true));
}

/** A schema's pattern may match anywhere in the string. */
function searched(pattern: unknown, place: string): Expression {
  if (typeof pattern !== 'string') throw grammarError(place, 'a regular expression as a string', pattern);
  const { body, isAnchoredAtStart, isAnchoredAtEnd } = parseRegex(pattern, place, jsonChar);
  const anything = repeat(jsonChar([[0, MAX_CODE_POINT]]), 0, Infinity);
  const parts = [...(isAnchoredAtStart ? [] : [anything]), body, ...(isAnchoredAtEnd ? [] : [anything])];
  return quoted({ kind: 'sequence', parts });
}
