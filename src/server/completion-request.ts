/**
 * The body of POST /v1/completions: its schema, and the prompts it holds. Used by completions.ts.
 */
import * as z from 'zod';
import type { Prompt } from '../options.js';
import { generationShape, parseBody } from './generation-parameters.js';

const tokenIds = z.array(z.int().min(0).max(0x7fffffff));

const completionSchema = z.strictObject({
  ...generationShape,
  prompt: z.union([z.string(), z.array(z.string()).min(1), tokenIds.min(1), z.array(tokenIds.min(1)).min(1)]),
  logprobs: z.int().min(0).max(5).nullish(),
  echo: z.literal(false, 'expected false: the prompt is not sent back').nullish(),
  best_of: z.literal(1, 'expected 1: all answers are sent').nullish(),
  suffix: z.literal('', 'expected no suffix: the model only continues').nullish(),
});

export type CompletionBody = z.infer<typeof completionSchema>;

/** Throws ApiError. */
export function parseCompletionBody(body: unknown): CompletionBody {
  return parseBody(completionSchema, body);
}

export function promptsOf({ prompt }: CompletionBody): Prompt[] {
  if (typeof prompt === 'string') return [prompt];
  if (typeof prompt[0] === 'number') return [{ inputIds: prompt as number[] }];
  return prompt.map((entry) => (typeof entry === 'string' ? entry : { inputIds: entry as number[] }));
}
