/**
 * What a request changes in its logits before a token is chosen: logit bias, repetition, frequency and presence
 * penalties, in this order. Owned by the sampler of one request; rows of requests without any pass through untouched.
 */
export type PenaltyParams = {
  /** Divides positive and multiplies negative logits of tokens of the prompt and the answer; 1 = none. */
  repetitionPenalty: number;
  /** Subtracted once per time that the answer holds the token; 0 = none. */
  frequencyPenalty: number;
  /** Subtracted once from tokens that the answer holds; 0 = none. */
  presencePenalty: number;
  /** Added to the logits of these tokens. */
  logitBias: readonly (readonly [tokenId: number, bias: number])[];
};

export class Penalties {
  readonly #params: PenaltyParams;
  readonly #active: boolean;
  /** Times that the answer holds each token that was seen; 0: in the prompt only. In order of first sight. */
  readonly #counts = new Map<number, number>();
  #scratch = new Float32Array(0);

  constructor(params: PenaltyParams) {
    const { repetitionPenalty, frequencyPenalty, presencePenalty, logitBias } = params;
    this.#params = params;
    const none = repetitionPenalty === 1 && frequencyPenalty === 0 && presencePenalty === 0;
    this.#active = !none || logitBias.length > 0;
  }

  /** Tells tokens of the prompt, or with `generated` of the answer. */
  observe(tokenIds: ArrayLike<number>, generated: boolean): void {
    if (!this.#active) return;
    for (let i = 0; i < tokenIds.length; i++) {
      const id = tokenIds[i] ?? 0;
      this.#counts.set(id, (this.#counts.get(id) ?? 0) + (generated ? 1 : 0));
    }
  }

  /** The row to choose from: `logits` itself where nothing applies, else a copy that stays valid until the next call. */
  apply(logits: Float32Array): Float32Array {
    const { repetitionPenalty, frequencyPenalty, presencePenalty, logitBias } = this.#params;
    if (!this.#active || (this.#counts.size === 0 && logitBias.length === 0)) return logits;
    if (this.#scratch.length !== logits.length) this.#scratch = new Float32Array(logits.length);
    const row = this.#scratch;
    row.set(logits);
    for (const [id, bias] of logitBias) row[id] = (row[id] ?? 0) + bias;
    for (const [id, count] of this.#counts) {
      let value = row[id] ?? 0;
      value = value > 0 ? value / repetitionPenalty : value * repetitionPenalty;
      if (count > 0) value -= presencePenalty + frequencyPenalty * count;
      row[id] = value;
    }
    return row;
  }
}
