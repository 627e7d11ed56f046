/**
 * The form of an answer that is one tool call and nothing else, for `tool_choice: "required"` or a named function: what
 * the readers of tool-call-forms.ts and harmony.ts read. Called by tool-request.ts. A call is never wider than its
 * function's schema; what cannot be held to is refused, by the engine or here.
 */

import type { OfferedFunction } from '../answer/tool-call-forms.js';
import type { PartFormat, ResponseFormat } from '../grammar/response-format.js';
import type { ToolCallStyle } from '../model/tool-call-style.js';
import { heldArguments } from './held-arguments.js';

export type HeldForm = Exclude<ResponseFormat, { type: 'text' }>;

/** Throws ApiError where a schema has no form between tags. */
export function heldForm(style: ToolCallStyle, functions: readonly OfferedFunction[]): HeldForm {
  const ofEach = (form: (offered: OfferedFunction) => readonly PartFormat[]): HeldForm => ({
    type: 'choice',
    options: functions.map((offered) => ({ type: 'sequence', parts: form(offered) })),
  });
  switch (style.kind) {
    case 'tagged':
      return sequence(literal(`${style.open}\n`), ofEach(callObject), literal(`\n${style.close}`));
    case 'list':
      return sequence(literal(`${style.open}[`), ofEach(callObject), literal(']'));
    case 'deepseek':
      return sequence(literal(style.open), ofEach(deepseekCall), literal(style.close));
    case 'kimi':
      return sequence(literal(style.open), ofEach(kimiCall), literal(style.close));
    case 'harmony':
      return ofEach(harmonyCall);
    case 'arg-tags':
      return ofEach(({ name, parameters }) => [
        literal(`${style.open}${name}`),
        ...heldArguments(parameters, {
          before: (key) => [BREAK, literal(`<arg_key>${key}</arg_key>`), BREAK, literal('<arg_value>')],
          close: '</arg_value>',
        }),
        BREAK,
        literal(style.close),
      ]);
    case 'function-tags':
      return ofEach(({ name, parameters }) => [
        literal(`${style.open}\n<function=${name}>`),
        ...heldArguments(parameters, {
          before: (key) => [literal(`\n<parameter=${key}>\n`)],
          behind: '\n',
          close: '</parameter>',
        }),
        literal(`\n</function>\n${style.close}`),
      ]);
    case 'invoke-tags':
      return ofEach(({ name, parameters }) => [
        literal(`${style.open}\n<invoke name="${name}">`),
        ...heldArguments(parameters, {
          before: (key) => [literal(`\n<parameter name="${key}">`)],
          close: '</parameter>',
        }),
        literal(`\n</invoke>\n${style.close}`),
      ]);
  }
}

/** Templates of one family differ in their new lines. */
const BREAK: PartFormat = { type: 'regex', pattern: '\\n?' };

const SPACE: PartFormat = { type: 'regex', pattern: ' ?' };

/** As V3 and R1 write it, or V3.1. */
function deepseekCall(offered: OfferedFunction): PartFormat[] {
  const { name } = offered;
  const given = argumentsOf(offered);
  const fenced = sequence(literal(`function<｜tool▁sep｜>${name}\n\`\`\`json\n`), given, literal('\n```'));
  const plain = sequence(literal(`${name}<｜tool▁sep｜>`), given);
  const call: PartFormat = { type: 'choice', options: [fenced, plain] };
  return [literal('<｜tool▁call▁begin｜>'), call, literal('<｜tool▁call▁end｜>')];
}

/** Kimi numbers the calls of a whole conversation. */
function kimiCall(offered: OfferedFunction): PartFormat[] {
  return [
    literal(`<|tool_call_begin|>functions.${offered.name}:`),
    { type: 'regex', pattern: '[0-9]{1,3}' },
    literal('<|tool_call_argument_begin|>'),
    argumentsOf(offered),
    literal('<|tool_call_end|>'),
  ];
}

/** The recipient stands before the channel, as templates write it, or behind. What ends a call ends the answer. */
function harmonyCall(offered: OfferedFunction): PartFormat[] {
  const to = `to=functions.${offered.name}`;
  const headers = [
    ` ${to}<|channel|>commentary json<|message|>`,
    `<|channel|>commentary ${to} <|constrain|>json<|message|>`,
  ];
  return [{ type: 'choice', options: headers.map(literal) }, argumentsOf(offered)];
}

/** The JSON of a call. Its parts are forms of their own: references of a schema are told from its own root. */
function callObject(offered: OfferedFunction): PartFormat[] {
  const before = ['{"name":', `"${offered.name}",`, '"arguments":'];
  return [...before.flatMap((text) => [literal(text), SPACE]), argumentsOf(offered), literal('}')];
}

/** The JSON of a function's arguments, which are an object also where the schema does not say so. */
function argumentsOf({
  parameters = { properties: {} },
}: OfferedFunction): PartFormat & { type: 'json_schema' } {
  const isSaid = ['type', '$ref', 'anyOf', 'oneOf', 'allOf'].some((key) => key in parameters);
  return { type: 'json_schema', schema: isSaid ? parameters : { type: 'object', ...parameters } };
}

function literal(text: string): PartFormat {
  return { type: 'literal', text };
}

function sequence(...parts: readonly PartFormat[]): HeldForm {
  return { type: 'sequence', parts };
}
