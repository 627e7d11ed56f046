/** Signs of the families' chat templates, for the tests of this folder. */

import type { AnswerStyles } from '../../../src/answer/answer-reader.js';
import { reasoningStyle } from '../../../src/model/reasoning-style.js';
import { toolCallStyle } from '../../../src/model/tool-call-style.js';

/** What each family's template gives its forms away by; `{{ tools }}` stands for its list of tools. */
const TEMPLATES = {
  qwen3: '{{ tools }}<tool_call>\n{"name": \n</tool_call>{{ content.split(\'</think>\') }}',
  'qwen3-coder': '{{ tools }}<tool_call>\n<function={{ name }}>\n<parameter={{ key }}>',
  glm: '[gMASK]<sop>{{ tools }}<tool_call>{{ name }}<arg_key>{{ key }}</arg_key><arg_value><think></think>',
  minimax: '{{ tools }}{%- set begin = \'<minimax:tool_call>\' %}<invoke name="{{ name }}"></think>',
  deepseek:
    "{{ tools }}'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' <think></think>",
  kimi: '{{ tools }}<|tool_calls_section_begin|><|tool_call_begin|>{{ id }}<|tool_call_argument_begin|>',
  ernie: '{{ tools }}<tool_call>\n</tool_call><think>\n\n</think>\n\n<response>\n\n</response>\n',
  'gpt-oss': '{{ tools }}<|start|>assistant<|channel|>analysis<|message|>',
  mistral: '{{ tools }}[AVAILABLE_TOOLS][TOOL_CALLS]',
  plain: '{{ messages }}',
} as const;
export type Family = keyof typeof TEMPLATES;

export const stylesOf = (family: Family): AnswerStyles => {
  const texts = { default: TEMPLATES[family] };
  return { toolCalls: toolCallStyle(texts), reasoning: reasoningStyle(texts) };
};
