/**
 * JSON schemas as grammars: which JSON texts are written is narrower than what the schema accepts (properties come in
 * the schema's order, numbers have at most 16 digits before and after the point), and never wider. A keyword that
 * cannot be held to is refused, never passed over; annotations (`title`, `description`, `default`, ...) and formats
 * without a pattern here say nothing about validity. Called by constraint.ts; the keywords are in
 * docs/structured-output.md.
 */
import {
  choice,
  type Expression,
  type Grammar,
  grammarError,
  MAX_DEPTH,
  rule,
  sequence,
  text,
} from './expression.js';
import { anyJsonRules, COLON, JSON_RULES, jsonArray, jsonObject, type Property } from './json-text.js';
import { integerBetween, numberBetween } from './number-ranges.js';
import {
  ANNOTATIONS,
  areDisjoint,
  checkKeywords,
  countOf,
  isSchema,
  type Schema,
  typeOf,
  typesOf,
} from './schema-keywords.js';
import { stringOf } from './schema-string.js';

/** Longest property name beside which others may be written. */
const MAX_NAME = 256;

/** Any JSON object. */
export function jsonObjectGrammar(): Grammar {
  return { root: rule(JSON_RULES.object), rules: anyJsonRules() };
}

/** `place` names the option in errors. Throws OptionError. */
export function schemaGrammar(schema: unknown, place: string): Grammar {
  const compiler = new SchemaCompiler(schema, place);
  const root = compiler.value(schema, place, 0);
  return { root, rules: new Map([...anyJsonRules(), ...compiler.rules]) };
}

class SchemaCompiler {
  readonly rules = new Map<string, Expression>();
  #root: unknown;
  #place: string;

  constructor(root: unknown, place: string) {
    this.#root = root;
    this.#place = place;
  }

  value(schema: unknown, place: string, depth: number): Expression {
    if (depth > MAX_DEPTH)
      throw grammarError(place, `a schema nested at most ${MAX_DEPTH} deep`, 'a deeper one');
    if (schema === true) return rule(JSON_RULES.value);
    if (schema === false) throw grammarError(place, 'a schema that some value fulfils', false);
    if (!isSchema(schema)) throw grammarError(place, 'a JSON schema (an object, true or false)', schema);
    checkKeywords(schema, place);
    const branches = this.#branches(schema, place, depth);
    if (branches !== undefined) return branches;
    if ('const' in schema || 'enum' in schema) return enumeration(schema, place);
    const types = typesOf(schema, place);
    if (types === undefined) return rule(JSON_RULES.value);
    return choice(...types.map((type) => this.#typed(type, schema, place, depth)));
  }

  /** $ref and the combining keywords, each of which stands alone beside annotations. */
  #branches(schema: Schema, place: string, depth: number): Expression | undefined {
    const name = ['$ref', 'anyOf', 'oneOf', 'allOf'].find((keyword) => keyword in schema);
    if (name === undefined) return undefined;
    const beside = Object.keys(schema).find((key) => key !== name && !ANNOTATIONS.has(key));
    if (beside !== undefined)
      throw grammarError(
        `${place}.${name}`,
        'no other keyword beside it',
        beside,
        'Move it into the branches.',
      );
    if (name === '$ref') return this.#reference(schema.$ref, `${place}.$ref`, depth);
    const options = schema[name];
    if (!Array.isArray(options) || options.length === 0)
      throw grammarError(`${place}.${name}`, 'a non-empty list of schemas', options);
    const compiled = options.map((option, index) =>
      this.value(option, `${place}.${name}[${index}]`, depth + 1),
    );
    if (name === 'allOf' && options.length > 1)
      throw grammarError(
        `${place}.allOf`,
        'a single schema',
        `${options.length}`,
        'Merge them into one schema.',
      );
    if (name === 'oneOf') this.#checkDisjoint(options, `${place}.oneOf`);
    return choice(...compiled);
  }

  #checkDisjoint(options: readonly unknown[], place: string): void {
    for (const [index, option] of options.entries()) {
      const other = options
        .slice(0, index)
        .findIndex((earlier) => !areDisjoint(this.#resolved(earlier), this.#resolved(option)));
      if (other < 0) continue;
      const got = `schemas ${other} and ${index} that may both accept a value`;
      throw grammarError(
        place,
        'schemas that differ in type, or in a required constant property',
        got,
        'Use anyOf.',
      );
    }
  }

  #resolved(schema: unknown): unknown {
    const isReference = isSchema(schema) && typeof schema.$ref === 'string';
    return isReference ? resolvePointer(this.#root, schema.$ref as string) : schema;
  }

  /** Every reference is a rule, so that a schema may refer to itself. */
  #reference(reference: unknown, place: string, depth: number): Expression {
    // Of this schema: a grammar may hold several.
    const name = `$ref ${this.#place} ${String(reference)}`;
    if (this.rules.has(name)) return rule(name);
    const target = typeof reference === 'string' ? resolvePointer(this.#root, reference) : undefined;
    if (target === undefined) {
      throw grammarError(place, 'a reference inside of the schema, such as "#/$defs/name"', reference);
    }
    this.rules.set(name, text(''));
    const where = `${this.#place}${String(reference).slice(1).replaceAll('/', '.')}`;
    this.rules.set(name, this.value(target, where, depth + 1));
    return rule(name);
  }

  #typed(type: string, schema: Schema, place: string, depth: number): Expression {
    switch (type) {
      case 'object':
        return this.#object(schema, place, depth);
      case 'array':
        return this.#array(schema, place, depth);
      case 'string':
        return stringOf(schema, place);
      case 'integer':
        return integerBetween(schema, place);
      case 'number':
        return numberBetween(schema, place);
      case 'boolean':
        return choice(text('true'), text('false'));
      default:
        return text('null');
    }
  }

  #object(schema: Schema, place: string, depth: number): Expression {
    const { properties = {}, required = [], additionalProperties } = schema;
    if (!isSchema(properties)) throw grammarError(`${place}.properties`, 'an object of schemas', properties);
    if (!Array.isArray(required) || !required.every((name) => typeof name === 'string'))
      throw grammarError(`${place}.required`, 'a list of property names', required);
    const names = [...new Set([...Object.keys(properties), ...(required as string[])])];
    const listed = names.map((name): Property => {
      const value = Object.hasOwn(properties, name) ? properties[name] : (additionalProperties ?? true);
      const where = `${place}.properties.${name}`;
      const member = sequence(text(JSON.stringify(name)), COLON, this.value(value, where, depth + 1));
      return { name, isRequired: required.includes(name), member: this.#ruleOf(member, where) };
    });
    // Further properties are written only where they are asked for, or where nothing else is said.
    const further = additionalProperties ?? names.length === 0;
    if (further === false) return jsonObject(listed, undefined);
    const long = names.find((name) => name.length > MAX_NAME);
    if (long !== undefined)
      throw grammarError(
        `${place}.additionalProperties`,
        `names of at most ${MAX_NAME} characters beside it`,
        long,
      );
    const extra = this.value(further, `${place}.additionalProperties`, depth + 1);
    return jsonObject(listed, this.#ruleOf(extra, `${place}.additionalProperties`));
  }

  #array(schema: Schema, place: string, depth: number): Expression {
    const { prefixItems = [] } = schema;
    if (!Array.isArray(prefixItems))
      throw grammarError(`${place}.prefixItems`, 'a list of schemas', prefixItems);
    const first = prefixItems.map((item, index) =>
      this.value(item, `${place}.prefixItems[${index}]`, depth + 1),
    );
    const min = countOf(schema, 'minItems', place, 0);
    const max = countOf(schema, 'maxItems', place, Infinity);
    if (min > max) throw grammarError(`${place}.minItems`, `at most maxItems (${max})`, min);
    // Behind listed entries others are written only where they are asked for.
    const { items = first.length === 0 || min > first.length } = schema;
    if (items === false && min > first.length)
      throw grammarError(`${place}.minItems`, `at most ${first.length}, as items is false`, min);
    const rest = items === false ? undefined : this.value(items, `${place}.items`, depth + 1);
    return jsonArray(first, rest && this.#ruleOf(rest, `${place}.items`), min, max);
  }

  /** A rule of its own, so that what stands in several places of a grammar is called there and not copied. */
  #ruleOf(expression: Expression, place: string): Expression {
    const name = `${this.rules.size} ${place}`;
    this.rules.set(name, expression);
    return rule(name);
  }
}

/** `enum` and `const`: those of their values that have the schema's type, each in one spelling. */
function enumeration(schema: Schema, place: string): Expression {
  const values = 'const' in schema ? [schema.const] : schema.enum;
  if (!Array.isArray(values) || values.length === 0)
    throw grammarError(`${place}.enum`, 'a non-empty list of values', values);
  const types = 'type' in schema ? typesOf(schema, place) : undefined;
  const isOfType = (value: unknown) =>
    types === undefined || typeOf(value).some((type) => types.includes(type));
  const inConst = (value: unknown) =>
    !('const' in schema && 'enum' in schema) || includesValue(schema.enum, value);
  const allowed = values.filter((value) => isOfType(value) && inConst(value));
  if (allowed.length === 0) throw grammarError(place, 'a value that fulfils all of its keywords', values);
  return choice(...allowed.map((value) => text(JSON.stringify(value))));
}

function includesValue(values: unknown, value: unknown): boolean {
  return Array.isArray(values) && values.some((other) => JSON.stringify(other) === JSON.stringify(value));
}

/** A JSON pointer in a fragment: "#", "#/$defs/name". */
function resolvePointer(root: unknown, reference: string): unknown {
  if (reference !== '#' && !reference.startsWith('#/')) return undefined;
  let at: unknown = root;
  for (const part of reference.split('/').slice(1)) {
    const key = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~');
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, key)) return undefined;
    at = (at as Record<string, unknown>)[key];
  }
  return at;
}
