/** Answers that are held to a call: whatever tokens are chosen, the family's reader finds one valid call and no text. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { answerReader } from '../../../src/answer/answer-reader.js';
import type { OfferedFunction } from '../../../src/answer/tool-call-forms.js';
import { OptionError } from '../../../src/errors.js';
import { isResponseFormat } from '../../../src/grammar/response-format.js';
import { ApiError } from '../../../src/server/api-error.js';
import { heldForm } from '../../../src/server/held-call.js';
import { type Family, stylesOf } from '../answer/family-templates.js';
import { admits, randomText, toyConstraints } from '../grammar/toy-vocabulary.js';

const FUNCTIONS: OfferedFunction[] = [
  {
    name: 'get_weather',
    parameters: {
      type: 'object',
      properties: {
        city: { type: 'string', description: 'a name' },
        days: { type: 'integer', minimum: 1, maximum: 9 },
        unit: { enum: ['C', 'F', null] },
        place: { $ref: '#/$defs/place' },
        note: { anyOf: [{ type: 'string' }, { type: 'null' }] },
        exact: { type: 'boolean' },
      },
      required: ['city', 'place'],
      additionalProperties: false,
      $defs: { place: { type: 'array', items: { type: 'integer' }, maxItems: 2 } },
    },
  },
  { name: 'get-time' },
  { name: 'now', parameters: {} },
];
const MARKS: Partial<Record<Family, string[]>> = {
  deepseek: [
    '<｜tool▁calls▁begin｜>',
    '<｜tool▁call▁begin｜>',
    '<｜tool▁sep｜>',
    '<｜tool▁call▁end｜>',
    '<｜tool▁calls▁end｜>',
  ],
  kimi: [
    '<|tool_calls_section_begin|>',
    '<|tool_call_begin|>',
    '<|tool_call_argument_begin|>',
    '<|tool_call_end|>',
    '<|tool_calls_section_end|>',
  ],
  'gpt-oss': ['<|channel|>', '<|message|>', '<|constrain|>', '<|start|>', '<|end|>'],
};
/** Of values between tags. */
const CLOSING: Partial<Record<Family, string>> = {
  'qwen3-coder': '\n</parameter>',
  minimax: '</parameter>',
  glm: '</arg_value>',
};
const ajv = new Ajv2020({ strict: false });
const seeds = Array.from({ length: 24 }, (_, index) => index);

function callsOf(family: Family, text: string, functions = FUNCTIONS) {
  const reader = answerReader({ ...stylesOf(family), reasoning: undefined }, functions, false);
  if (reader === undefined) throw new Error('no reader');
  const [most, rest] = [reader.push(text), reader.end()];
  expect(most.text + rest.text + most.reasoning + rest.reasoning, text).toBe('');
  return [...most.calls, ...rest.calls].map(({ function: made }) => made);
}

function formOf(family: Family, functions = FUNCTIONS) {
  const { toolCalls } = stylesOf(family);
  if (toolCalls === undefined) throw new Error('no style');
  const form = heldForm(toolCalls, functions);
  expect(isResponseFormat(form)).toBe(true);
  return form;
}

const FAMILIES = [
  'qwen3',
  'mistral',
  'qwen3-coder',
  'glm',
  'minimax',
  'deepseek',
  'kimi',
  'gpt-oss',
] as const;

describe.each(FAMILIES)('%s', (family) => {
  const form = formOf(family);
  const called = new Set<string>();
  // The same marks as text, where a tokenizer does not hold them for special.
  it.each([[MARKS[family] ?? []], [[]]])(
    'holds answers to one valid call, with the special tokens %j',
    (specials) => {
      const constraints = toyConstraints(0, specials);
      for (const seed of seeds) {
        const text = randomText(constraints, form, seed, '"}]', { specials, closing: CLOSING[family] });
        const calls = callsOf(family, text);
        expect(calls.length, text).toBe(1);
        const [{ name, arguments: given } = { name: '', arguments: '' }] = calls;
        called.add(name);
        const { parameters = {} } = FUNCTIONS.find((offered) => offered.name === name) ?? {};
        expect(ajv.validate(parameters, JSON.parse(given)), `${text} ${ajv.errorsText()}`).toBe(true);
      }
      expect([...called].sort()).toEqual(['get-time', 'get_weather', 'now']);
    },
  );
});

const one = (schema: object): OfferedFunction[] => [
  { name: 'f', parameters: { type: 'object', properties: { x: schema }, required: ['x'] } },
];

describe('text between tags', () => {
  const constraints = toyConstraints();
  const write = (value: string) =>
    `<tool_call>\n<function=f>\n<parameter=x>\n${value}\n</parameter>\n</function>\n</tool_call>`;
  const form = formOf('qwen3-coder', one({ type: 'string' }));

  it('is any but its closing tag', () => {
    const piece = fc.constantFrom(
      '<',
      '</',
      '</p',
      '</parameter',
      '>',
      'a',
      '/',
      '\n',
      ' ',
      'ä',
      '<parameter=y>',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const value = pieces.join('');
        const isFree = !value.includes('</parameter>');
        expect(admits(constraints, form, write(value))).toBe(isFree);
        if (!isFree) return;
        const [call] = callsOf('qwen3-coder', write(value), one({ type: 'string' }));
        expect(JSON.parse(call?.arguments ?? '')).toEqual({ x: value });
      }),
    );
  });

  it.each<[string, object]>([
    ['a pattern', { type: 'string', pattern: '^a$' }],
    ['a length', { anyOf: [{ type: 'string', maxLength: 3 }, { type: 'integer' }] }],
    ['constants that its tag would end', { const: 'a</parameter>' }],
  ])('cannot be held to %s', (_, schema) => {
    expect(() => formOf('qwen3-coder', one(schema))).toThrow(/cannot be held to/);
  });

  it('cannot be held to more than a list of properties', () => {
    const choice = [{ name: 'f', parameters: { anyOf: [{ type: 'object' }] } }];
    expect(() => formOf('glm', choice)).toThrow(/`anyOf` of the arguments/);
  });
});

it('whatever is said of arguments is held to or refused, and breaks nothing', () => {
  const constraints = toyConstraints();
  const word = fc.constantFrom(
    'type',
    'properties',
    'required',
    'x',
    'string',
    'anyOf',
    'const',
    'enum',
    'object',
  );
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom<unknown>('string', 'object', true, null, 3, ['x'], ['string', 'null']),
      fc.dictionary(word, tie('value'), { maxKeys: 3 }),
      fc.array(tie('value'), { maxLength: 2 }),
    ),
  }));
  const parameters = fc.dictionary(word, value, { maxKeys: 4 });
  fc.assert(
    fc.property(parameters, fc.constantFrom('qwen3', 'glm', 'minimax', 'kimi'), (given, family) => {
      try {
        constraints.create(formOf(family as Family, [{ name: 'f', parameters: given }]), true);
      } catch (error) {
        if (!(error instanceof ApiError || error instanceof OptionError)) throw error;
      }
    }),
    { numRuns: 500 },
  );
});
