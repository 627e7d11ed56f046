import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ToolCall, ToolCallReader } from '../../../src/answer/tool-calls.js';
import { type ToolCallStyle, toolCallStyle } from '../../../src/model/tool-call-style.js';

type Style = Exclude<ToolCallStyle, { kind: 'harmony' }>;
const tagged: Style = { kind: 'tagged', open: '<tool_call>', close: '</tool_call>' };
const list: Style = { kind: 'list', open: '[TOOL_CALLS]' };
const call = (name: string, given: object) => JSON.stringify({ name, arguments: given });

/** Reads a text in the given parts. */
function read(style: Style, parts: readonly string[], names = ['add', 'weather']) {
  const reader = new ToolCallReader(style, new Map(names.map((name) => [name, { name }])));
  let text = '';
  const calls: ToolCall[] = [];
  for (const found of [...parts.map((part) => reader.push(part)), reader.end()]) {
    text += found.text;
    calls.push(...found.calls);
  }
  return { text, calls: calls.map(({ function: made }) => [made.name, JSON.parse(made.arguments)]) };
}

/** A text cut at random places. */
const cut = (text: string) =>
  fc
    .array(fc.nat(text.length), { maxLength: 12 })
    .map((places) => [0, ...places.sort((a, b) => a - b), text.length])
    .map((places) => places.slice(1).map((end, at) => text.slice(places[at], end)));

describe.each([
  [
    'two calls',
    tagged,
    `<tool_call>\n${call('add', { a: 1 })}\n</tool_call>\n<tool_call>${call('weather', {})}</tool_call>`,
    '',
    2,
  ],
  [
    'text, then a call',
    tagged,
    `Let me see.\n<tool_call>${call('add', { t: '<tool_call>' })}</tool_call>`,
    'Let me see.',
    1,
  ],
  ['no call', tagged, 'a < b, <tool and </tool_call> \n', 'a < b, <tool and </tool_call> \n', 0],
  [
    'what is not JSON',
    tagged,
    '<tool_call>{"name": add}</tool_call> so',
    '<tool_call>{"name": add}</tool_call> so',
    0,
  ],
  [
    'a function that nobody offered',
    tagged,
    `<tool_call>${call('rm', {})}</tool_call>`,
    `<tool_call>${call('rm', {})}</tool_call>`,
    0,
  ],
  ['a call without its end', tagged, `x <tool_call>${call('add', {})}`, `x <tool_call>${call('add', {})}`, 0],
  ['a list', list, `[TOOL_CALLS] [${call('add', { a: [1] })}, ${call('weather', {})}]`, '', 2],
  ['a list whose marker is no text', list, ` [${call('add', { a: 1 })}]`, '', 1],
  ['a list that is none', list, '[1, 2] is a list', '[1, 2] is a list', 0],
  ['text before a list', list, `Well.[TOOL_CALLS][${call('add', {})}]`, 'Well.', 1],
] as const)('%s', (_, style, text, expectedText, count) => {
  it('is read the same in whatever parts it comes', () => {
    fc.assert(
      fc.property(cut(text), (parts) => {
        const found = read(style, parts);
        expect(found.text).toBe(expectedText);
        expect(found.calls.length).toBe(count);
      }),
    );
  });
});

it('gives text at once, and holds back no more than what may begin a call', () => {
  const reader = new ToolCallReader(tagged, new Map([['add', { name: 'add' }]]));
  expect(reader.push('The answer is')).toEqual({ text: 'The answer is', calls: [] });
  expect(reader.push(' <tool')).toEqual({ text: '', calls: [] });
  expect(reader.push('s are')).toEqual({ text: ' <tools are', calls: [] });
  expect(read(tagged, [`<tool_call>${call('add', { a: 1, b: 'x' })}</tool_call>`]).calls).toEqual([
    ['add', { a: 1, b: 'x' }],
  ]);
});

it('loses nothing of any text', () => {
  const piece = fc.constantFrom(
    '<tool_call>',
    '</tool_call>',
    '<',
    'tool_call>',
    '{"name":"x"}',
    '[',
    ']',
    'a',
    ' ',
  );
  fc.assert(
    fc.property(fc.array(piece), fc.constantFrom(tagged, list), (pieces, style) => {
      expect(read(style, pieces, ['none']).text).toBe(pieces.join(''));
    }),
  );
});

describe('toolCallStyle', () => {
  const style = (template: string) => toolCallStyle({ default: template });
  it('is told by the template', () => {
    expect(style('{% if tools %}<tool_call>{"name"}</tool_call>{% endif %}')).toEqual(tagged);
    expect(style('{% if tools %}[AVAILABLE_TOOLS][TOOL_CALLS]{% endif %}')).toEqual(list);
    expect(style('{% if tools %}<|tool_call|>{% endif %}')).toEqual({ kind: 'list', open: '<|tool_call|>' });
    expect(toolCallStyle({ default: '', tool_use: '{{ tools }}[TOOL_CALLS]' })).toEqual(list);
  });
  it('is not guessed where the form is another', () => {
    expect(style('{{ messages }}')).toBeUndefined();
    expect(style('{% if tools %}{{ tools }}{% endif %}')).toBeUndefined();
    expect(style('{% if tools %}<tool_call><invoke name="x"></tool_call>{% endif %}')).toBeUndefined();
    expect(toolCallStyle({})).toBeUndefined();
  });
});
