/**
 * How often each (layer, expert) pair is chosen by a token, estimated from the routing seen so far: the mean of two
 * exponential averages, a slow one that remembers the prompt and a fast one that follows what is being written now.
 * The score behind eviction by score and behind the prefill predictor. Rates of different layers compare directly.
 */
import type { ActiveExperts } from './residency.js';

export type RateOptions = {
  /** Tokens after which an activation has faded to 1/e, in the slow and in the fast average. */
  slowTokens?: number;
  fastTokens?: number;
  /** Share of the fast average, 0..1. */
  fastShare?: number;
};

export class ActivationRates {
  /** [layers * numExperts] uses per token, 0..1. */
  readonly rates: Float64Array;
  /** How much one token's choice moves a rate: differences below a few of these mean nothing. */
  readonly resolution: number;
  private readonly slow: Float64Array;
  private readonly fast: Float64Array;
  private readonly slowTokens: number;
  private readonly fastTokens: number;
  private readonly fastShare: number;

  constructor(
    layers: number,
    private readonly numExperts: number,
    options: RateOptions = {},
  ) {
    this.slowTokens = options.slowTokens ?? SLOW_TOKENS;
    this.fastTokens = options.fastTokens ?? FAST_TOKENS;
    this.fastShare = options.fastShare ?? FAST_SHARE;
    this.rates = new Float64Array(layers * numExperts);
    this.slow = new Float64Array(layers * numExperts);
    this.fast = new Float64Array(layers * numExperts);
    this.resolution = this.fastShare / this.fastTokens + (1 - this.fastShare) / this.slowTokens;
  }

  /** Takes in one layer of a step of `tokens` tokens. */
  observe(work: ActiveExperts, tokens: number): void {
    const { slow, fast, rates, fastShare } = this;
    const slowKept = Math.exp(-tokens / this.slowTokens);
    const fastKept = Math.exp(-tokens / this.fastTokens);
    const base = work.layer * this.numExperts;
    const end = base + this.numExperts;
    for (let key = base; key < end; key++) {
      slow[key] = (slow[key] as number) * slowKept;
      fast[key] = (fast[key] as number) * fastKept;
    }
    for (let i = 0; i < work.count; i++) {
      const key = base + (work.expertIds[i] as number);
      const share = (work.tokenCounts[i] as number) / tokens;
      slow[key] = (slow[key] as number) + share * (1 - slowKept);
      fast[key] = (fast[key] as number) + share * (1 - fastKept);
    }
    for (let key = base; key < end; key++) {
      rates[key] = (1 - fastShare) * (slow[key] as number) + fastShare * (fast[key] as number);
    }
  }
}

/** Chosen on recorded routing by bench/schedule-traces.mjs. */
const SLOW_TOKENS = 256;
const FAST_TOKENS = 16;
const FAST_SHARE = 0.4;
