/**
 * Arguments of a tool call between tags, as forms: in the schema's order, strings as bare text up to their closing tag,
 * anything else as JSON. The counterpart of tool-arguments.ts, which reads them. Called by held-call.ts.
 */

import { typesOf } from '../answer/tool-arguments.js';
import type { PartFormat } from '../grammar/response-format.js';
import { isSchema, type Schema } from '../grammar/schema-keywords.js';
import { invalidRequest } from './api-error.js';

/** How a family writes one argument. */
export type ArgumentTags = {
  before: (key: string) => PartFormat[];
  /** Text between a value and its closing tag, a new line of the template's. */
  behind?: string;
  close: string;
};

/** Keywords of a string that hold for bare text as they are; `format` is an annotation here. */
const BARE_KEYWORDS = new Set(['type', 'title', 'description', 'default', 'examples', 'format']);
/** Keywords of the arguments as a whole. */
const OBJECT_KEYWORDS = new Set(['type', 'properties', 'required', 'additionalProperties', '$defs']);

/** Throws ApiError where a schema says more than can be held to between tags. */
export function heldArguments(parameters: Schema | undefined, tags: ArgumentTags): PartFormat[] {
  if (parameters === undefined) return [];
  const unknown = Object.keys(parameters).find(
    (key) => !OBJECT_KEYWORDS.has(key) && !['title', 'description', '$schema'].includes(key),
  );
  if (unknown !== undefined) throw notHeld(`\`${unknown}\` of the arguments`);
  const { properties = {}, required = [] } = parameters;
  const isList = Array.isArray(required) && required.every((name) => typeof name === 'string');
  if (!isSchema(properties) || !isList) throw notHeld('`properties` or `required` of the arguments');
  const names = [...new Set([...Object.keys(properties), ...required])];
  return names.map((name) => {
    const schema = Object.hasOwn(properties, name) ? properties[name] : {};
    if (!isSchema(schema)) throw notHeld(`the schema of \`${name}\``);
    const argument: PartFormat = {
      type: 'sequence',
      parts: [
        ...tags.before(name),
        heldValue(name, schema, parameters.$defs, tags.close),
        literal(`${tags.behind ?? ''}${tags.close}`),
      ],
    };
    return required.includes(name) ? argument : { type: 'choice', options: [literal(''), argument] };
  });
}

function heldValue(name: string, schema: Schema, definitions: unknown, close: string): PartFormat {
  // What may be a string is read as one, whatever else it may be.
  if (!typesOf(schema).has('string')) {
    const whole = definitions === undefined ? schema : { ...schema, $defs: definitions };
    return { type: 'json_schema', schema: whole };
  }
  const values = 'const' in schema ? [schema.const] : schema.enum;
  if (Array.isArray(values)) {
    const texts = values.filter((value) => typeof value === 'string' && !value.includes(close));
    if (texts.length === 0) throw notHeld(`the values of \`${name}\``);
    return { type: 'choice', options: texts.map((value) => literal(value as string)) };
  }
  const branches = [schema, ...[schema.anyOf, schema.oneOf].filter(Array.isArray).flat()].filter(isSchema);
  const isBare = branches.some(
    (branch) =>
      typesOf({ type: branch.type }).has('string') &&
      Object.keys(branch).every((key) => BARE_KEYWORDS.has(key)),
  );
  if (!isBare) throw notHeld(`the schema of \`${name}\``);
  return { type: 'regex', pattern: textWithout(close) };
}

/** A pattern of all texts that do not contain `mark`, whose first character comes in it but once. */
function textWithout(mark: string): string {
  const [first = '', ...rest] = [...mark].map((character) =>
    character.replace(/[\\^$.*+?()[\]{}|/-]/, '\\$&'),
  );
  // Behind each `first` something that is not the rest of the mark: it ends early, or goes on otherwise.
  const tail = rest.reduceRight(
    (after, character) =>
      `(?:[^${first}${character}][^${first}]*${after === '' ? '' : `|${character}${after}`})?`,
    '',
  );
  return `[^${first}]*(?:${first}${tail})*`;
}

function literal(text: string): PartFormat {
  return { type: 'literal', text };
}

function notHeld(what: string) {
  return invalidRequest(
    `A call that is required cannot be held to ${what}, which this model writes between tags. Use "auto"`,
    'tool_choice',
  );
}
