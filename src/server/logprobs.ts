/**
 * Log-probabilities of tokens in the forms of both endpoints. Used by chat.ts and completions.ts. Texts of tokens that
 * are only part of a character hold U+FFFD; their bytes are exact.
 */
import type { TokenLogprob } from '../llm.js';

type Scored = { logprob: number; bytes: number[] };

/** -Infinity has no JSON form; OpenAI writes this in its place. */
const LEAST_LOGPROB = -9999;

const textOf = (token: Scored) => Buffer.from(token.bytes).toString('utf8');
const scoreOf = (token: Scored) => Math.max(token.logprob, LEAST_LOGPROB);

export function chatLogprobs(tokens: readonly TokenLogprob[]) {
  const entry = (token: Scored) => ({ token: textOf(token), logprob: scoreOf(token), bytes: token.bytes });
  return {
    content: tokens.map((token) => ({ ...entry(token), top_logprobs: token.top.map(entry) })),
    refusal: null,
  };
}

/** `offset`: where in the text the first token begins. */
export function completionLogprobs(tokens: readonly TokenLogprob[], offset: number) {
  let at = offset;
  const starts: number[] = [];
  for (const token of tokens) {
    starts.push(at);
    at += textOf(token).length;
  }
  return {
    tokens: tokens.map(textOf),
    token_logprobs: tokens.map(scoreOf),
    top_logprobs: tokens.map(({ top }) =>
      Object.fromEntries(top.map((token) => [textOf(token), scoreOf(token)])),
    ),
    text_offset: starts,
  };
}
