import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { answerReader } from '../../../src/answer/answer-reader.js';
import type { OfferedFunction } from '../../../src/answer/tool-call-forms.js';
import { opensReasoning } from '../../../src/model/reasoning-style.js';
import { type Family, stylesOf } from './family-templates.js';

const FUNCTIONS: OfferedFunction[] = [
  {
    name: 'get_weather',
    parameters: {
      type: 'object',
      properties: {
        city: { type: 'string' },
        days: { type: 'integer' },
        exact: { type: 'boolean' },
        place: { type: 'object' },
        note: { anyOf: [{ type: 'string' }, { type: 'null' }] },
      },
    },
  },
  { name: 'get-time' },
];

/** Reads a text in the given parts, the calls' arguments parsed. */
function read(family: Family, parts: readonly string[], begins = false, functions = FUNCTIONS) {
  const reader = answerReader(stylesOf(family), functions, begins);
  const all = { reasoning: '', text: '', calls: [] as [string, unknown][] };
  if (reader === undefined) return { ...all, text: parts.join('') };
  for (const found of [...parts.map((part) => reader.push(part)), reader.end()]) {
    all.reasoning += found.reasoning;
    all.text += found.text;
    for (const { function: made } of found.calls) all.calls.push([made.name, JSON.parse(made.arguments)]);
  }
  return all;
}

/** A text cut at random places. */
const cut = (text: string) =>
  fc
    .array(fc.nat(text.length), { maxLength: 16 })
    .map((places) => [0, ...places.sort((a, b) => a - b), text.length])
    .map((places) => places.slice(1).map((end, at) => text.slice(places[at], end)));

type Case = [
  what: string,
  family: Family,
  text: string,
  expected: { reasoning?: string; text?: string; calls?: [string, unknown][] },
  begins?: boolean,
];

const weather = (given: object): [string, unknown] => ['get_weather', given];
const CASES: Case[] = [
  ['an answer', 'plain', '<think>no marks</think> here', { text: '<think>no marks</think> here' }],
  ['reasoning, then text', 'qwen3', '<think>\nHm.\n</think>\n\nYes.\n', { reasoning: 'Hm.', text: 'Yes.\n' }],
  ['text alone', 'qwen3', 'Yes, <think> is a tag.', { text: 'Yes, <think> is a tag.' }],
  ['no reasoning between the marks', 'qwen3', '<think>\n\n</think>\n\nYes.', { text: 'Yes.' }],
  ['reasoning without its end', 'qwen3', '<think>\nHm. </thin', { reasoning: 'Hm. </thin' }],
  [
    'reasoning, text and calls',
    'qwen3',
    '<think>\nHm.\n</think>\n\nLet me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n<tool_call>\n{"name": "get-time", "arguments": {}}\n</tool_call>',
    { reasoning: 'Hm.', text: 'Let me see.', calls: [weather({ city: 'Oslo' }), ['get-time', {}]] },
  ],
  [
    'a call inside of reasoning is reasoning',
    'qwen3',
    '<tool_call>\n{"name": "get-time", "arguments": {}}\n</tool_call></think>No.',
    {
      reasoning: '<tool_call>\n{"name": "get-time", "arguments": {}}\n</tool_call>',
      text: 'No.',
    },
    true,
  ],
  [
    'parameters on lines of their own',
    'qwen3-coder',
    'I look.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nSão Paulo\n(SP)\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=exact>\nTrue\n</parameter>\n<parameter=place>\n{"lat": 1.5}\n</parameter>\n</function>\n</tool_call>',
    {
      text: 'I look.',
      calls: [weather({ city: 'São Paulo\n(SP)', days: 3, exact: true, place: { lat: 1.5 } })],
    },
  ],
  [
    'a function without parameters',
    'qwen3-coder',
    '<tool_call><function=get-time></function></tool_call>',
    {
      calls: [['get-time', {}]],
    },
  ],
  [
    'numbers of a string stay text, null may be null',
    'qwen3-coder',
    '<tool_call>\n<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=note>\nnull\n</parameter>\n</function>\n</tool_call>',
    { calls: [weather({ city: '12', note: null })] },
  ],
  [
    'keys and values of GLM-4.5',
    'glm',
    '\n<think>Hm.</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value> 東京 </arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>',
    { reasoning: 'Hm.', calls: [weather({ city: ' 東京 ', days: 2 })] },
  ],
  [
    'keys and values without lines, two calls, as GLM-4.7 writes them',
    'glm',
    'Hm.</think>Both.<tool_call>get_weather<arg_key>city</arg_key><arg_value>a < b</arg_value></tool_call><tool_call>get-time</tool_call>',
    { reasoning: 'Hm.', text: 'Both.', calls: [weather({ city: 'a < b' }), ['get-time', {}]] },
    true,
  ],
  [
    'invocations of MiniMax-M2',
    'minimax',
    'Hm.\n</think>\n\n<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Oslo</parameter>\n<parameter name="days">5</parameter>\n</invoke>\n<invoke name="get-time">\n</invoke>\n</minimax:tool_call>',
    { reasoning: 'Hm.', calls: [weather({ city: 'Oslo', days: 5 }), ['get-time', {}]] },
    true,
  ],
  [
    'fenced JSON of DeepSeek-V3 and R1',
    'deepseek',
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Oslo"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get-time\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    { calls: [weather({ city: 'Oslo' }), ['get-time', {}]] },
  ],
  [
    'JSON of DeepSeek-V3.1, whose section the end of the answer closes',
    'deepseek',
    'Hm.</think>I look. <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Oslo", "days": 2}<｜tool▁call▁end｜>',
    { reasoning: 'Hm.', text: 'I look.', calls: [weather({ city: 'Oslo', days: 2 })] },
    true,
  ],
  [
    'sections of Kimi-K2',
    'kimi',
    'I look.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Oslo"}<|tool_call_end|><|tool_call_begin|>functions.get-time:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>',
    { text: 'I look.', calls: [weather({ city: 'Oslo' }), ['get-time', {}]] },
  ],
  [
    'reasoning and response of ERNIE',
    'ernie',
    'Hm.\n</think>\n\n<response>\nYes.\n</response>\n',
    { reasoning: 'Hm.', text: 'Yes.' },
    true,
  ],
  [
    'a call of ERNIE',
    'ernie',
    'Hm.\n</think>\n\n<tool_call>\n{"name": "get-time", "arguments": {}}\n</tool_call>\n',
    { reasoning: 'Hm.', text: '\n', calls: [['get-time', {}]] },
    true,
  ],
  [
    'channels of gpt-oss',
    'gpt-oss',
    '<|channel|>analysis<|message|>Hm. 1 <| 2.<|end|><|start|>assistant<|channel|>final<|message|>Yes.',
    { reasoning: 'Hm. 1 <| 2.', text: 'Yes.' },
  ],
  [
    'a preamble and a call of gpt-oss, which a token that is no text ends',
    'gpt-oss',
    '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city":"Oslo"}',
    { reasoning: 'Hm.', text: 'I look.', calls: [weather({ city: 'Oslo' })] },
  ],
  [
    'the recipient before the channel, two calls',
    'gpt-oss',
    ' to=functions.get_weather<|channel|>commentary json<|message|>{"city":"<|x|>"}<|call|><|start|>assistant to=functions.get-time<|channel|>analysis<|message|><|call|>',
    { calls: [weather({ city: '<|x|>' }), ['get-time', {}]] },
  ],
  ['gpt-oss without any header', 'gpt-oss', 'as it is', { text: 'as it is' }],
  ['gpt-oss cut short in a header', 'gpt-oss', '<|channel|>anal', {}],
  [
    'a call that is no JSON, and one of a function that nobody offered',
    'gpt-oss',
    '<|channel|>commentary to=functions.get-time<|message|>{oh<|call|><|start|>assistant<|channel|>commentary to=functions.rm<|message|>{}<|end|>',
    { text: '{oh{}' },
  ],
  [
    'arguments that are no object',
    'gpt-oss',
    '<|channel|>commentary to=functions.get-time<|message|>[5]<|call|>',
    { text: '[5]' },
  ],
];

describe.each(CASES)('%s (%s)', (_, family, text, expected, begins) => {
  it('is read the same in whatever parts it comes', () => {
    const wanted = { reasoning: '', text: '', calls: [], ...expected };
    expect(read(family, [text], begins)).toEqual(wanted);
    expect(read(family, [...text], begins)).toEqual(wanted);
    fc.assert(
      fc.property(cut(text), (parts) => {
        expect(read(family, parts, begins)).toEqual(wanted);
      }),
    );
  });
});

const MARKED = ['qwen3', 'qwen3-coder', 'glm', 'minimax', 'deepseek', 'kimi'] as const;
const PIECES = [
  ...['<tool_call>', '</tool_call>', '<function=x>', '</function>', '<parameter=a>', '</parameter>'],
  ...[
    '<arg_key>',
    '</arg_key>',
    '<arg_value>',
    '</arg_value>',
    '<minimax:tool_call>',
    '</minimax:tool_call>',
  ],
  ...[
    '<invoke name="x">',
    '</invoke>',
    '<parameter name="a">',
    '<｜tool▁calls▁begin｜>',
    '<｜tool▁calls▁end｜>',
  ],
  ...['<｜tool▁call▁begin｜>', '<｜tool▁sep｜>', '<｜tool▁call▁end｜>', '<|tool_calls_section_begin|>'],
  ...[
    '<|tool_calls_section_end|>',
    '<|tool_call_begin|>',
    '<|tool_call_argument_begin|>',
    '<|tool_call_end|>',
  ],
  ...[
    'functions.x:0',
    '```json\n',
    '\n```',
    '{}',
    '{"name":"x","arguments":{}}',
    'x',
    ' ',
    '\n',
    '<',
    '|',
    '</',
  ],
];

it('text that looks like calls of what nobody offered stays as it is', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...PIECES)), fc.constantFrom(...MARKED), (pieces, family) => {
      // A beginning that is no mark of reasoning, so that space in front counts as text.
      const parts = ['.', ...pieces];
      expect(read(family, parts)).toEqual({ reasoning: '', text: parts.join(''), calls: [] });
    }),
    { numRuns: 500 },
  );
});

it('of hostile reasoning only its marks and the space around them are lost', () => {
  const piece = fc.constantFrom('<think>', '</think>', '<tool_call>', '<thin', 'k>', 'Q', ' ', '\n', '{');
  fc.assert(
    fc.property(fc.array(piece), fc.boolean(), (parts, begins) => {
      const { reasoning, text } = read('qwen3', parts, begins);
      const plain = (all: string) => all.replace(/[^Q{]/g, '');
      expect(plain(reasoning + text)).toBe(plain(parts.join('')));
    }),
    { numRuns: 500 },
  );
});

it('hostile channels neither make a call nor lose a message', () => {
  const message = fc.record({
    header: fc.constantFrom('final', 'analysis', 'commentary', 'final to=functions.rm', 'x', ''),
    body: fc.constantFrom(
      'Q',
      'Q <|',
      '<|constrain|>Q',
      '{"Q":1}',
      'Q<|message|>',
      'to=functions.get-time Q',
    ),
    end: fc.constantFrom('<|end|><|start|>assistant', '<|call|><|start|>', '<|end|>', ''),
  });
  fc.assert(
    fc.property(fc.array(message), (messages) => {
      const all = messages.map(({ header, body, end }) => `<|channel|>${header}<|message|>${body}${end}`);
      const { reasoning, text, calls } = read('gpt-oss', [all.join('')]);
      expect(calls).toEqual([]);
      expect((reasoning + text).replace(/[^Q]/g, '').length).toBe(messages.length);
    }),
    { numRuns: 500 },
  );
});

it('a prompt may open the reasoning', () => {
  const style = stylesOf('glm').reasoning;
  expect(opensReasoning('<|assistant|>\n<think>\n', style)).toBe(true);
  expect(opensReasoning('<|assistant|>\n<think></think>\n', style)).toBe(false);
  expect(opensReasoning('<think>', undefined)).toBe(false);
});
