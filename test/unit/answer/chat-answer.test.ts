import { describe, expect, it } from 'vitest';
import { answerMessage, offeredFunctions, readAnswer } from '../../../src/answer/chat-answer.js';
import { type Family, stylesOf } from './family-templates.js';

const functions = offeredFunctions([
  { type: 'function', function: { name: 'add', parameters: { type: 'object' } } },
  { type: 'other' },
]);
const read = (family: Family, text: string, begins = false) =>
  readAnswer(text, stylesOf(family), functions, begins);
const call = { type: 'function', function: { name: 'add', arguments: '{"a":1}' } };

describe('readAnswer', () => {
  it.each<[Family, string, boolean, object]>([
    ['plain', ' <think>a</think>', false, { content: ' <think>a</think>', reasoning: '', toolCalls: [] }],
    ['qwen3', '<think>\nHm.\n</think>\n\nYes.', false, { content: 'Yes.', reasoning: 'Hm.', toolCalls: [] }],
    ['qwen3', 'Hm.\n</think>\n\nYes.', true, { content: 'Yes.', reasoning: 'Hm.', toolCalls: [] }],
    [
      'qwen3',
      'So:\n<tool_call>\n{"name": "add", "arguments": {"a":1}}\n</tool_call>',
      false,
      { content: 'So:', reasoning: '', toolCalls: [call] },
    ],
    [
      'gpt-oss',
      '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions.add<|channel|>commentary json<|message|>{"a":1}',
      false,
      { content: '', reasoning: 'Hm.', toolCalls: [call] },
    ],
  ])('%s: %j', (family, text, begins, expected) => {
    expect(read(family, text, begins)).toMatchObject(expected);
  });

  it('offers functions and nothing else', () => {
    expect(functions.map(({ name }) => name)).toEqual(['add']);
    expect(offeredFunctions()).toEqual([]);
  });
});

describe('answerMessage', () => {
  const toolCalls = [{ id: 'call_1', ...call } as const];
  it.each<[Family, object, object]>([
    ['plain', { content: 'a' }, { role: 'assistant', content: 'a' }],
    [
      'qwen3',
      { content: '', reasoning: 'Hm.', toolCalls },
      {
        role: 'assistant',
        content: '',
        reasoning_content: 'Hm.',
        tool_calls: [{ ...call, id: 'call_1', function: { name: 'add', arguments: { a: 1 } } }],
      },
    ],
    ['deepseek', { content: 'x', toolCalls }, { role: 'assistant', content: 'x', tool_calls: toolCalls }],
    [
      'gpt-oss',
      { content: 'a', reasoning: 'Hm.' },
      { role: 'assistant', content: 'a', reasoning_content: 'Hm.', thinking: 'Hm.' },
    ],
  ])('is what templates of %s take', (family, about, expected) => {
    const answer = { content: '', reasoning: '', toolCalls: [], ...about };
    expect(answerMessage(answer as never, stylesOf(family).toolCalls)).toEqual(expected);
  });
});
