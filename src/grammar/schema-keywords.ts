/**
 * What the keywords of one JSON schema say without looking into its parts: which are known, which types they allow,
 * whether two schemas exclude each other. Called by json-schema.ts and its parts.
 */
import { grammarError, MAX_REPEATS } from './expression.js';

export type Schema = Readonly<Record<string, unknown>>;

export const ANNOTATIONS: ReadonlySet<string> = new Set([
  ...['$schema', '$id', '$anchor', '$comment', '$defs', 'definitions', 'title', 'description', 'default'],
  ...['examples', 'deprecated', 'readOnly', 'writeOnly'],
]);

const NUMBER = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'];
/** Keywords by the type of value that they speak of. */
const KEYWORDS: ReadonlyMap<string, readonly string[]> = new Map([
  ['object', ['properties', 'required', 'additionalProperties', 'propertyNames']],
  ['array', ['items', 'prefixItems', 'minItems', 'maxItems']],
  ['string', ['minLength', 'maxLength', 'pattern', 'format']],
  ['number', NUMBER],
  ['integer', NUMBER],
  ['boolean', []],
  ['null', []],
]);
const TYPES = [...KEYWORDS.keys()];
const COMBINING = new Set(['$ref', 'anyOf', 'oneOf', 'allOf', 'enum', 'const', 'type']);

export function isSchema(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Refuses keywords that the grammar would not hold to. Throws OptionError. */
export function checkKeywords(schema: Schema, place: string): void {
  const types = typesOf(schema, place) ?? [];
  for (const [keyword, value] of Object.entries(schema)) {
    if (ANNOTATIONS.has(keyword) || COMBINING.has(keyword)) continue;
    const speaksOf = TYPES.filter((type) => KEYWORDS.get(type)?.includes(keyword));
    if (speaksOf.length === 0)
      throw grammarError(`${place}.${keyword}`, 'a supported keyword (docs/structured-output.md)', keyword);
    if (speaksOf.some((type) => types.includes(type)) && ('enum' in schema || 'const' in schema))
      throw grammarError(`${place}.${keyword}`, 'no such keyword beside enum or const', keyword);
    if (keyword === 'propertyNames' && JSON.stringify(value) !== '{"type":"string"}')
      throw grammarError(`${place}.propertyNames`, '{"type":"string"}', value);
  }
}

/**
 * Types that the schema allows: those of `type`, else those that its keywords speak of; undefined where it has no such
 * keyword and allows everything.
 */
export function typesOf(schema: Schema, place: string): string[] | undefined {
  const { type } = schema;
  if (type === undefined) {
    const spoken = TYPES.filter(
      (name) => name !== 'integer' && KEYWORDS.get(name)?.some((key) => key in schema),
    );
    return spoken.length === 0 ? undefined : spoken;
  }
  const types: unknown[] = Array.isArray(type) ? type : [type];
  const unknown = types.some((name) => typeof name !== 'string' || !TYPES.includes(name));
  if (types.length === 0 || unknown)
    throw grammarError(`${place}.type`, `one of ${TYPES.join(', ')} or a list of them`, type);
  return types as string[];
}

/** The JSON types that a value has: an integer is a number too. */
export function typeOf(value: unknown): string[] {
  if (value === null) return ['null'];
  if (Array.isArray(value)) return ['array'];
  if (typeof value === 'number') return Number.isInteger(value) ? ['number', 'integer'] : ['number'];
  return [typeof value];
}

export function countOf(schema: Schema, name: string, place: string, otherwise: number): number {
  const value = schema[name];
  if (value === undefined) return otherwise;
  if (Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= MAX_REPEATS)
    return value as number;
  throw grammarError(`${place}.${name}`, `an integer from 0 to ${MAX_REPEATS}`, value);
}

/** True only where no value fulfils both: other types, other constants, or a required property with other constants. */
export function areDisjoint(one: unknown, other: unknown): boolean {
  if (!isSchema(one) || !isSchema(other)) return false;
  const [constants, others] = [constantsOf(one), constantsOf(other)];
  if (constants !== undefined && others !== undefined)
    return constants.every((value) => !others.includes(value));
  const [types, otherTypes] = [statedTypes(one), statedTypes(other)];
  if (types !== undefined && otherTypes !== undefined) {
    const related = (a: string, b: string) =>
      a === b || `${a} ${b}` === 'integer number' || `${a} ${b}` === 'number integer';
    if (!types.some((type) => otherTypes.some((each) => related(type, each)))) return true;
  }
  return requiredConstants(one).some(([name, values]) => {
    const match = requiredConstants(other).find(([otherName]) => otherName === name);
    return match?.[1].every((value) => !values.includes(value)) ?? false;
  });
}

/** `const` and `enum` as JSON texts. */
function constantsOf(schema: Schema): string[] | undefined {
  if ('const' in schema) return [JSON.stringify(schema.const)];
  return Array.isArray(schema.enum) ? schema.enum.map((value) => JSON.stringify(value)) : undefined;
}

function statedTypes(schema: Schema): string[] | undefined {
  if (schema.type !== undefined)
    return (Array.isArray(schema.type) ? schema.type : [schema.type]).map(String);
  const constants = constantsOf(schema);
  return constants?.flatMap((value) => typeOf(JSON.parse(value)));
}

function requiredConstants(schema: Schema): [name: string, values: string[]][] {
  const { properties, required, type } = schema;
  if (!isSchema(properties) || !Array.isArray(required) || type !== 'object') return [];
  return required.flatMap((name) => {
    const property = typeof name === 'string' ? properties[name] : undefined;
    const values = isSchema(property) ? constantsOf(property) : undefined;
    return values === undefined ? [] : [[String(name), values] as [string, string[]]];
  });
}
