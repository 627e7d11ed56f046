/**
 * How a model sets its reasoning apart from its answer, told by the text of its chat template. Called by engine/load.ts;
 * src/server reads answers by it. gpt-oss has channels instead (tool-call-style.ts).
 */
import type { ChatTemplateTexts } from './chat-template.js';
import { isHarmony } from './tool-call-style.js';

export type ReasoningStyle = {
  /** Stand before and behind the reasoning. */
  open: string;
  close: string;
  /** Stand around the answer behind it, where the model writes such (ERNIE). */
  answer?: { open: string; close: string };
};

const THINK = { open: '<think>', close: '</think>' };
const RESPONSE = { open: '<response>', close: '</response>' };

/** Undefined where the template knows no reasoning. */
export function reasoningStyle(texts: ChatTemplateTexts): ReasoningStyle | undefined {
  const template = texts.default ?? '';
  if (isHarmony(template) || !template.includes(THINK.close)) return undefined;
  return template.includes(RESPONSE.open) ? { ...THINK, answer: RESPONSE } : THINK;
}

/** Whether a prompt opens the reasoning itself, so that the answer begins inside of it. */
export function opensReasoning(prompt: string, style: ReasoningStyle | undefined): boolean {
  return style !== undefined && prompt.trimEnd().endsWith(style.open);
}
