/**
 * How a model writes tool calls, told by the text of its chat template: templates render earlier calls in the form that
 * the model was trained on. Called by engine/load.ts; src/server reads answers by it. Knows no parser.
 */
import type { ChatTemplateTexts } from './chat-template.js';

export type ToolCallStyle =
  /** `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, one after the other (Hermes, Qwen). */
  | { kind: 'tagged'; open: string; close: string }
  /** A marker, then one JSON list of such objects (Mistral, Granite). */
  | { kind: 'list'; open: string };

/** Markers of the list form, as templates spell them. */
const LIST_MARKERS = ['[TOOL_CALLS]', '<|tool_call|>'];

/** Undefined where no template takes tools, or where calls are written in a form that is not known here. */
export function toolCallStyle(texts: ChatTemplateTexts): ToolCallStyle | undefined {
  const template = texts.tool_use ?? texts.default ?? '';
  if (!/\btools\b/.test(template)) return undefined;
  const marker = LIST_MARKERS.find((text) => template.includes(text));
  if (marker !== undefined) return { kind: 'list', open: marker };
  const [open, close] = ['<tool_call>', '</tool_call>'];
  // Others put XML of their own between the same tags: <function=...>, <arg_key>.
  const isJson = !/<function=|<arg_key>|<invoke\b/.test(template);
  return isJson && template.includes(open) && template.includes(close)
    ? { kind: 'tagged', open, close }
    : undefined;
}
