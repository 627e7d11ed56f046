/**
 * From the options of a request to what is computed: defaults filled in, and the checks that need the model's vocabulary
 * and context. Called by engine.ts for each request.
 */
import { OptionError, PromptError } from '../errors.js';
import { checkTokenIds } from '../model/tokenizer.js';
import { GENERATE_DEFAULTS, type RequestOptions } from '../options.js';
import type { RequestParams } from './request.js';
import { randomSeed, type SamplingParams } from './sampler.js';

/** What a request asks for: its options over the model's own sampling over the defaults. */
export function requestParams(
  options: RequestOptions,
  sampling: Partial<Omit<SamplingParams, 'seed'>>,
): RequestParams {
  const stop = options.stop ?? [];
  return {
    sampling: {
      temperature: options.temperature ?? sampling.temperature ?? 0,
      topK: options.topK ?? sampling.topK ?? 0,
      topP: options.topP ?? sampling.topP ?? 1,
      minP: options.minP ?? sampling.minP ?? GENERATE_DEFAULTS.minP,
      repetitionPenalty: options.repetitionPenalty ?? sampling.repetitionPenalty ?? 1,
      frequencyPenalty: options.frequencyPenalty ?? GENERATE_DEFAULTS.frequencyPenalty,
      presencePenalty: options.presencePenalty ?? GENERATE_DEFAULTS.presencePenalty,
      logitBias: Object.entries(options.logitBias ?? {}).map(([id, bias]) => [Number(id), bias] as const),
      seed: options.seed ?? randomSeed(),
    },
    maxTokens: options.maxTokens ?? GENERATE_DEFAULTS.maxTokens,
    stop: typeof stop === 'string' ? [stop] : stop,
    ignoreEos: options.ignoreEos ?? GENERATE_DEFAULTS.ignoreEos,
    logprobs: options.logprobs ?? -1,
    promptLogprobs: options.promptLogprobs ?? -1,
    captureLogits: options.captureLogits ?? GENERATE_DEFAULTS.captureLogits,
    trace: options.trace ?? GENERATE_DEFAULTS.trace,
  };
}

/** Throws OptionError. */
export function checkBias({ logitBias }: SamplingParams, vocabSize: number): void {
  const unknown = logitBias.find(([id]) => id >= vocabSize);
  if (unknown) throw new OptionError('logitBias', `token ids below ${vocabSize}`, unknown[0]);
}

/** Throws PromptError for prompts that are empty, leave no room for an answer, or have unknown tokens. */
export function checkPrompt(prompt: Int32Array, vocabSize: number, maxContext: number): void {
  checkTokenIds(prompt, vocabSize);
  if (prompt.length < maxContext) return;
  throw new PromptError(
    `Expected a prompt of at most ${maxContext - 1} tokens (the context is ${maxContext}), got ${prompt.length}`,
    { hint: 'Shorten the prompt, or load the model with a larger `maxContext`.' },
  );
}
