/**
 * The body of POST /v1/chat/completions: its schema, and what it asks of the model. Used by chat.ts. Messages become
 * what chat templates expect: text parts joined, arguments of tool calls parsed.
 */
import * as z from 'zod';
import { answerMessage } from '../answer/chat-answer.js';
import type { ToolCallStyle } from '../model/tool-call-style.js';
import type { ChatMessage } from '../options.js';
import { invalidRequest } from './api-error.js';
import { generationShape, parseBody } from './generation-parameters.js';
import { toolShape } from './tool-request.js';

const textPart = z.object({ type: z.literal('text'), text: z.string() });
const content = z.union([z.string(), z.array(textPart)]);

const toolCall = z.object({
  id: z.string().min(1),
  type: z.literal('function'),
  function: z.object({ name: z.string().min(1), arguments: z.string() }),
});

const assistantMessage = z.object({
  role: z.literal('assistant'),
  content: content.nullish(),
  // Extension: the reasoning of an earlier answer, as answers here give it.
  reasoning_content: z.string().nullish(),
  name: z.string().optional(),
  tool_calls: z.array(toolCall).optional(),
});

const message = z.discriminatedUnion('role', [
  z.object({ role: z.literal('system'), content, name: z.string().optional() }),
  z.object({ role: z.literal('developer'), content, name: z.string().optional() }),
  z.object({ role: z.literal('user'), content, name: z.string().optional() }),
  assistantMessage,
  z.object({ role: z.literal('tool'), content, tool_call_id: z.string() }),
]);

const chatSchema = z.strictObject({
  ...generationShape,
  messages: z.array(message).min(1),
  max_completion_tokens: z.int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  ...toolShape,
  // Known to clients, without meaning for one local model.
  store: z.boolean().nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
  service_tier: z.string().nullish(),
  safety_identifier: z.string().nullish(),
  prompt_cache_key: z.string().nullish(),
  // Extension: further variables of the chat template, such as enable_thinking.
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
  // Extension: false leaves reasoning in the text, as the model wrote it.
  separate_reasoning: z.boolean().nullish(),
});

export type ChatBody = z.infer<typeof chatSchema>;

/** Throws ApiError. */
export function parseChatBody(body: unknown): ChatBody {
  const chat = parseBody(chatSchema, body);
  if (chat.top_logprobs && !chat.logprobs) {
    throw invalidRequest('`top_logprobs` needs `logprobs: true`', 'top_logprobs');
  }
  return chat;
}

/** Messages for the chat template, with tool calls as templates of this style expect them. */
export function templateMessages(body: ChatBody, style: ToolCallStyle | undefined): ChatMessage[] {
  return body.messages.map((entry) => {
    // Templates know the older name of the same role.
    const role = entry.role === 'developer' ? 'system' : entry.role;
    const made: ChatMessage = { role, content: joined(entry.content) };
    if ('name' in entry && entry.name !== undefined) made.name = entry.name;
    if (entry.role === 'tool') made.tool_call_id = entry.tool_call_id;
    if (entry.role !== 'assistant') return made;
    const { reasoning_content: reasoning, tool_calls: toolCalls = [] } = entry;
    return {
      ...made,
      ...answerMessage({ content: made.content, reasoning: reasoning ?? '', toolCalls }, style),
    };
  });
}

function joined(text: z.infer<typeof content> | null | undefined): string {
  return typeof text === 'string' ? text : (text ?? []).map((part) => part.text).join('');
}
