/**
 * The parameters that chat completions and completions share: their schema, and how they become options of
 * model.generate. Used by chat-request.ts and completion-request.ts. Unknown parameters are refused, as OpenAI does.
 */
import * as z from 'zod';
import type { GenerateOptions } from '../options.js';
import { invalidRequest } from './api-error.js';

const MAX_STOPS = 16;
/** Choices of one request, before the server's own limit. */
const MAX_N = 128;

export const generationShape = {
  model: z.string().min(1),
  stream: z.boolean().nullish(),
  stream_options: z
    .strictObject({ include_usage: z.boolean().optional(), include_obfuscation: z.boolean().optional() })
    .nullish(),
  n: z.int().min(1).max(MAX_N).nullish(),
  stop: z.union([z.string().min(1), z.array(z.string().min(1)).max(MAX_STOPS)]).nullish(),
  seed: z.int().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,9}$/, 'expected a token id'), z.number().min(-100).max(100))
    .nullish(),
  max_tokens: z.int().min(1).nullish(),
  // Known to clients, without meaning for one local model.
  user: z.string().nullish(),
  // Extensions, named as other open servers name them.
  top_k: z.int().min(0).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  repetition_penalty: z.number().positive().nullish(),
  ignore_eos: z.boolean().nullish(),
};

export type GenerationBody = z.infer<z.ZodObject<typeof generationShape>>;

/** A request as the rest of the server sees it, whichever endpoint it came through. */
export type Delivery = { stream: boolean; includeUsage: boolean; n: number };

export function deliveryOf(body: GenerationBody): Delivery {
  if (body.stream_options && !body.stream) {
    throw invalidRequest('`stream_options` needs `stream: true`', 'stream_options');
  }
  return {
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
    n: body.n ?? 1,
  };
}

/** Options of the answer with this number: each of several answers has a seed of its own. */
export function generateOptions(body: GenerationBody, maxTokens: number, choice: number): GenerateOptions {
  const greedy = body.top_p === 0;
  return {
    maxTokens,
    temperature: greedy ? 0 : (body.temperature ?? undefined),
    topP: greedy ? undefined : (body.top_p ?? undefined),
    topK: body.top_k ?? undefined,
    minP: body.min_p ?? undefined,
    repetitionPenalty: body.repetition_penalty ?? undefined,
    frequencyPenalty: body.frequency_penalty ?? undefined,
    presencePenalty: body.presence_penalty ?? undefined,
    logitBias: body.logit_bias ?? undefined,
    stop: body.stop ?? undefined,
    ignoreEos: body.ignore_eos ?? undefined,
    seed: seedOf(body.seed, choice),
  };
}

/** OpenAI takes negative seeds, the engine takes none: they count down from the largest one. */
function seedOf(seed: number | null | undefined, choice: number): number | undefined {
  if (seed === null || seed === undefined) return undefined;
  const base = seed < 0 ? Number.MAX_SAFE_INTEGER + 1 + seed : seed;
  return base + choice <= Number.MAX_SAFE_INTEGER ? base + choice : base - choice;
}

/** The body against its schema. Throws ApiError with the first thing that is wrong. */
export function parseBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.infer<Schema> {
  const outcome = schema.safeParse(body);
  if (outcome.success) return outcome.data;
  const issue = outcome.error.issues[0];
  const path = issue?.path.map(String).join('.') ?? '';
  if (issue?.code === 'unrecognized_keys') {
    const param = [path, issue.keys[0]].filter(Boolean).join('.');
    throw invalidRequest(`Unrecognized request argument supplied: ${param}`, param, 'unknown_parameter');
  }
  if (issue?.code === 'invalid_type' && path !== '' && valueAt(body, issue.path) === undefined) {
    throw invalidRequest(`Missing required parameter: ${path}`, path, 'missing_required_parameter');
  }
  const place = path === '' ? 'the body' : `\`${path}\``;
  throw invalidRequest(
    `Invalid value of ${place}: ${issue?.message ?? 'not as expected'}`,
    path || undefined,
  );
}

function valueAt(body: unknown, path: readonly PropertyKey[]): unknown {
  let value = body;
  for (const key of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}
