/**
 * `tools`, `tool_choice` and `response_format` of a chat request: their schemas, and what they ask of the model: which
 * tools its template is given and the form that its answer is held to. Used by chat-request.ts and chat.ts.
 */
import * as z from 'zod';
import type { OfferedFunction } from '../answer/tool-call-forms.js';
import type { PlanReport } from '../llm.js';
import type { ChatOptions } from '../options.js';
import { invalidRequest } from './api-error.js';
import { heldForm } from './held-call.js';

const schemaObject = z.record(z.string(), z.unknown());
const tool = z.object({
  type: z.literal('function'),
  function: z.object({
    name: z.string().regex(/^[\w.-]{1,64}$/, 'expected letters, digits, _, . and -, at most 64'),
    description: z.string().optional(),
    parameters: schemaObject.optional(),
    strict: z.boolean().nullish(),
  }),
});

export const toolShape = {
  tools: z.array(tool).max(128).nullish(),
  tool_choice: z
    .union([
      z.enum(['none', 'auto', 'required']),
      z.object({ type: z.literal('function'), function: z.object({ name: z.string() }) }),
    ])
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  response_format: z
    .discriminatedUnion('type', [
      z.object({ type: z.literal('text') }),
      z.object({ type: z.literal('json_object') }),
      z.object({
        type: z.literal('json_schema'),
        json_schema: z.object({
          name: z.string(),
          description: z.string().optional(),
          schema: schemaObject.optional(),
          strict: z.boolean().nullish(),
        }),
      }),
      // Extension: text that a regular expression matches as a whole.
      z.object({ type: z.literal('regex'), pattern: z.string() }),
    ])
    .nullish(),
};

type ToolBody = z.infer<z.ZodObject<typeof toolShape>>;
type Tool = z.infer<typeof tool>;

/** What is handed to the model, and what its answer is read by. */
export type ToolUse = {
  options: Pick<ChatOptions, 'tools' | 'responseFormat'>;
  /** Functions that may be called; empty where none may. */
  functions: OfferedFunction[];
  /** Only the first call counts. */
  single: boolean;
  /** The answer is a call from its first token on. */
  isHeld: boolean;
};

/** Throws ApiError. */
export function toolUse(body: ToolBody, info: PlanReport): ToolUse {
  const { choice, tools } = chosenTools(body);
  const responseFormat = formatOf(body);
  if (tools.length === 0) return { options: { responseFormat }, functions: [], single: false, isHeld: false };
  const { toolCalls } = info;
  if (toolCalls === undefined) {
    throw invalidRequest(
      'The chat template of this model takes no tools, or writes their calls in a form that is not known',
      'tools',
    );
  }
  const functions = tools.map((entry) => entry.function);
  const single = body.parallel_tool_calls === false || choice === 'must';
  if (choice === 'may') return { options: { tools, responseFormat }, functions, single, isHeld: false };
  if (responseFormat !== undefined && responseFormat.type !== 'text') {
    throw invalidRequest('A call that is required leaves no room for a `response_format`', 'response_format');
  }
  const held = heldForm(toolCalls, functions);
  return { options: { tools, responseFormat: held }, functions, single, isHeld: true };
}

/** The tools that the choice leaves, and whether one of them must be called. */
function chosenTools({ tools, tool_choice }: ToolBody): { choice: 'may' | 'must'; tools: Tool[] } {
  const given = tools ?? [];
  if (tool_choice && tool_choice !== 'none' && given.length === 0)
    throw invalidRequest('`tool_choice` needs `tools`', 'tool_choice');
  if (tool_choice === 'none') return { choice: 'may', tools: [] };
  if (tool_choice === 'required') return { choice: 'must', tools: given };
  if (typeof tool_choice !== 'object' || tool_choice === null) return { choice: 'may', tools: given };
  const { name } = tool_choice.function;
  const named = given.filter((entry) => entry.function.name === name);
  if (named.length === 0) throw invalidRequest(`There is no tool "${name}"`, 'tool_choice');
  return { choice: 'must', tools: named };
}

function formatOf({ response_format: format }: ToolBody): ChatOptions['responseFormat'] {
  if (!format) return undefined;
  if (format.type !== 'json_schema') return format;
  return { type: 'json_schema', schema: format.json_schema.schema ?? {} };
}
