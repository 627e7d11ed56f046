/**
 * Whole answers of chats: what a text holds by the forms of its model, and the message that it is in a conversation.
 * Called by llm.ts and engine/chat-session.ts; the server reads answers as they stream, by answer-reader.ts.
 */
import type { ToolCallStyle } from '../model/tool-call-style.js';
import type { ChatMessage } from '../options.js';
import { type AnswerStyles, answerReader } from './answer-reader.js';
import type { OfferedFunction } from './tool-call-forms.js';
import type { ToolCall } from './tool-calls.js';

/** A chat's answer without the marks of its model. */
export type ChatAnswer = {
  content: string;
  /** Empty where there is none. */
  reasoning: string;
  /** Calls of functions that were offered; anything else is content. */
  toolCalls: ToolCall[];
};

/** `beginsInReasoning`: the prompt has opened it. */
export function readAnswer(
  text: string,
  styles: AnswerStyles,
  functions: readonly OfferedFunction[],
  beginsInReasoning: boolean,
): ChatAnswer {
  const reader = answerReader(styles, functions, beginsInReasoning);
  if (reader === undefined) return { content: text, reasoning: '', toolCalls: [] };
  const [most, rest] = [reader.push(text), reader.end()];
  return {
    content: most.text + rest.text,
    reasoning: most.reasoning + rest.reasoning,
    toolCalls: [...most.calls, ...rest.calls],
  };
}

/** The functions among tools, in OpenAI's form. */
export function offeredFunctions(tools: readonly object[] = []): OfferedFunction[] {
  return tools.flatMap((tool) => {
    const { function: offered } = tool as { function?: Partial<OfferedFunction> };
    return typeof offered?.name === 'string' ? [offered as OfferedFunction] : [];
  });
}

/** The answer as a message of the conversation that goes on, as chat templates of this style want it. */
export function answerMessage(
  { content, reasoning, toolCalls }: ChatAnswer,
  style: ToolCallStyle | undefined,
): ChatMessage {
  const calls = toolCalls.length > 0 ? templateCalls(toolCalls, style) : undefined;
  return {
    role: 'assistant',
    content,
    ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
    // gpt-oss' own name, which its template does not take beside both content and calls.
    ...(reasoning !== '' && style?.kind === 'harmony' && !(content !== '' && calls)
      ? { thinking: reasoning }
      : {}),
    ...(calls ? { tool_calls: calls } : {}),
  };
}

/** DeepSeek's templates join the text of the arguments to others; all others take them apart, or write JSON. */
export function templateCalls(
  calls: readonly ToolCall[],
  style: ToolCallStyle | undefined,
): readonly object[] {
  return style?.kind === 'deepseek' ? calls : calls.map(templateCall);
}

/** Arguments become an object wherever the text is one. */
function templateCall(call: ToolCall) {
  let parsed: unknown;
  try {
    parsed = JSON.parse(call.function.arguments);
  } catch {
    parsed = call.function.arguments;
  }
  return { ...call, function: { name: call.function.name, arguments: parsed } };
}
