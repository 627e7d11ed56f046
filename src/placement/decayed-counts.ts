/**
 * Activation counts of (layer, expert) pairs that fade with each token computed since: the score behind eviction by
 * score and behind the prefill predictor. Old counts are not touched; instead new ones weigh more as time passes, so
 * that an update costs O(active experts) and scores of different layers compare directly.
 */
import type { ActiveExperts } from './residency.js';

/** Weight at which all counts are scaled back, far from the largest double. */
const RESCALE_AT = 1e100;

export class DecayedCounts {
  /** [layers * numExperts] counts times the current weight's scale. */
  readonly scores: Float64Array;
  /** Weight of a token seen now. */
  weight = 1;
  /** What a (layer, expert) pair used by every token would have. */
  fullScore = 0;
  private lastLayer = -1;

  /** @param horizonTokens tokens after which a count has faded to 1/e */
  constructor(
    layers: number,
    private readonly numExperts: number,
    private readonly horizonTokens: number,
  ) {
    this.scores = new Float64Array(layers * numExperts);
  }

  /** Counts one layer of a step; layers come in ascending order, a smaller one than before starts a new step. */
  observe(work: ActiveExperts, tokens: number): void {
    if (work.layer <= this.lastLayer) this.weight *= Math.exp(this.pendingTokens / this.horizonTokens);
    if (work.layer <= this.lastLayer || this.lastLayer < 0) this.beginStep(tokens);
    this.lastLayer = work.layer;
    const base = work.layer * this.numExperts;
    for (let i = 0; i < work.count; i++) {
      const key = base + (work.expertIds[i] as number);
      this.scores[key] = (this.scores[key] as number) + this.weight * (work.tokenCounts[i] as number);
    }
  }

  private pendingTokens = 0;

  private beginStep(tokens: number): void {
    this.pendingTokens = tokens;
    if (this.weight > RESCALE_AT) {
      for (let key = 0; key < this.scores.length; key++) {
        this.scores[key] = (this.scores[key] as number) / this.weight;
      }
      this.fullScore /= this.weight;
      this.weight = 1;
    }
    this.fullScore += this.weight * tokens;
  }
}
