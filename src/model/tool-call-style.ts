/**
 * How a model writes tool calls, told by the text of its chat template: templates render earlier calls in the form that
 * the model was trained on. Called by engine/load.ts; src/server reads answers by it. Knows no parser.
 */
import type { ChatTemplateTexts } from './chat-template.js';

/** Forms whose calls stand between two marks. */
export type MarkedCallKind =
  /** `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, one after the other (Hermes, Qwen, ERNIE). */
  | 'tagged'
  /** `<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>` (GLM). */
  | 'arg-tags'
  /** `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>` (Qwen3-Coder). */
  | 'function-tags'
  /** `<invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke>`, several in one section (MiniMax). */
  | 'invoke-tags'
  /** Calls between marks of their own, the name before a separator, JSON behind it (DeepSeek). */
  | 'deepseek'
  /** The same with `functions.NAME:INDEX` before the separator (Kimi). */
  | 'kimi';

export type ToolCallStyle =
  | { kind: MarkedCallKind; open: string; close: string }
  /** A marker, then one JSON list of such objects as in `tagged` (Mistral, Granite). */
  | { kind: 'list'; open: string }
  /** Channels of messages; a call is a message to `functions.NAME` (gpt-oss). */
  | { kind: 'harmony' };

/** Markers of the list form, as templates spell them. */
const LIST_MARKERS = ['[TOOL_CALLS]', '<|tool_call|>'];

/** What gives a form away, the more particular first: several share `<tool_call>`. */
const MARKED: readonly { sign: string; style: ToolCallStyle & { kind: MarkedCallKind } }[] = [
  {
    sign: '<|tool_calls_section_begin|>',
    style: { kind: 'kimi', open: '<|tool_calls_section_begin|>', close: '<|tool_calls_section_end|>' },
  },
  {
    sign: '<｜tool▁calls▁begin｜>',
    style: { kind: 'deepseek', open: '<｜tool▁calls▁begin｜>', close: '<｜tool▁calls▁end｜>' },
  },
  {
    sign: '<minimax:tool_call>',
    style: { kind: 'invoke-tags', open: '<minimax:tool_call>', close: '</minimax:tool_call>' },
  },
  { sign: '<arg_key>', style: { kind: 'arg-tags', open: '<tool_call>', close: '</tool_call>' } },
  { sign: '<function=', style: { kind: 'function-tags', open: '<tool_call>', close: '</tool_call>' } },
];

/** Undefined where no template takes tools, or where calls are written in a form that is not known here. */
export function toolCallStyle(texts: ChatTemplateTexts): ToolCallStyle | undefined {
  const template = texts.tool_use ?? texts.default ?? '';
  if (isHarmony(template)) return { kind: 'harmony' };
  if (!/\btools\b/.test(template)) return undefined;
  const marker = LIST_MARKERS.find((text) => template.includes(text));
  if (marker !== undefined) return { kind: 'list', open: marker };
  const marked = MARKED.find(({ sign }) => template.includes(sign));
  if (marked !== undefined) return marked.style;
  const [open, close] = ['<tool_call>', '</tool_call>'];
  // Others put XML of their own between the same tags.
  const isJson = !template.includes('<invoke');
  return isJson && template.includes(open) && template.includes(close)
    ? { kind: 'tagged', open, close }
    : undefined;
}

/** Answers of such templates are messages in channels, with or without tools. */
export function isHarmony(template: string): boolean {
  return ['<|start|>assistant', '<|channel|>', '<|message|>'].every((mark) => template.includes(mark));
}
