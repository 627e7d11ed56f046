/**
 * The `usage` object of an answer: OpenAI's counts, and as an extension what the request cost in time. Used by chat.ts
 * and completions.ts.
 */
import type { GenerateResult } from '../llm.js';

export type UsageBody = {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
  /** Of the answer that ended last. */
  timing: {
    queue_ms: number;
    time_to_first_token_ms: number;
    prefill_ms: number;
    decode_ms: number;
    total_ms: number;
    prefill_tokens_per_second: number;
    decode_tokens_per_second: number;
  };
};

/** Counts of several answers to `prompts` prompts; a prompt with several answers counts once. */
export function usageOf(results: readonly GenerateResult[], n: number): UsageBody {
  const perPrompt = results.filter((_, index) => index % n === 0);
  const sum = (list: readonly GenerateResult[], of: (result: GenerateResult) => number) =>
    list.reduce((total, result) => total + of(result), 0);
  const promptTokens = sum(perPrompt, ({ usage }) => usage.promptTokens);
  const completionTokens = sum(results, ({ usage }) => usage.completionTokens);
  const last = results.reduce<GenerateResult | undefined>(
    (latest, result) => (latest && latest.timings.totalMs >= result.timings.totalMs ? latest : result),
    undefined,
  );
  const round = (value: number | undefined) => Math.round((value ?? 0) * 1000) / 1000;
  const timings = last?.timings;
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: sum(perPrompt, ({ usage }) => usage.cachedPromptTokens) },
    timing: {
      queue_ms: round(timings?.queueMs),
      time_to_first_token_ms: round(timings?.timeToFirstTokenMs),
      prefill_ms: round(timings?.prefillMs),
      decode_ms: round(timings?.decodeMs),
      total_ms: round(timings?.totalMs),
      prefill_tokens_per_second: round(timings?.prefillTokensPerSecond),
      decode_tokens_per_second: round(timings?.decodeTokensPerSecond),
    },
  };
}
