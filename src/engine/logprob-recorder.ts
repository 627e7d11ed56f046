/**
 * Log-probabilities of one request's tokens, and which of them belong to the text that was already given out: text may
 * be held back (an unfinished character, the beginning of a stop text), and tokens wait with it. Used by request.ts.
 */
import type { ScoredToken, TokenLogprob } from './result.js';
import { logprobsOf } from './sampler.js';

export class LogprobRecorder {
  /** One entry per generated token. */
  readonly all: TokenLogprob[] = [];
  readonly #count: number;
  readonly #tokenBytes: (tokenId: number) => Uint8Array;
  /** For each token, where in the text its own text begins. */
  readonly #starts: number[] = [];
  #textLength = 0;
  #taken = 0;

  /** `count`: likeliest tokens told beside each generated one. */
  constructor(count: number, tokenBytes: (tokenId: number) => Uint8Array) {
    this.#count = count;
    this.#tokenBytes = tokenBytes;
  }

  /** A token was chosen from `logits` [vocabSize]. */
  add(logits: Float32Array, tokenId: number): void {
    const { top, ...chosen } = logprobsOf(logits, tokenId, this.#count);
    const withBytes = (token: Omit<ScoredToken, 'bytes'>) => ({
      ...token,
      bytes: [...this.#tokenBytes(token.tokenId)],
    });
    this.all.push({ ...withBytes(chosen), top: top.map(withBytes) });
    this.#starts.push(this.#textLength);
  }

  /** The last token brought this many characters of text, held back or not. */
  addText(length: number): void {
    this.#textLength += length;
  }

  /** Tokens not yet taken whose text begins before `textLength` characters. */
  take(textLength: number): TokenLogprob[] {
    const first = this.#taken;
    while (this.#taken < this.all.length && (this.#starts[this.#taken] ?? 0) < textLength) this.#taken++;
    return this.all.slice(first, this.#taken);
  }
}
