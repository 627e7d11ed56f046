/**
 * Time of one expert as a function of its tokens: a piecewise linear curve through knots at 1, 2, 3, 4, 6, 8, 12, ...
 * tokens, each of which can be corrected by what was observed. Used by cost-model.ts only.
 * An observation is a sum over experts, so a correction is shared among the knots by their part in the sum.
 */
import type { CostPoint } from './cost-profile.js';

/** Knots reach 2^19 tokens, more than any step has. */
const KNOTS = 39;

/** Largest change of one observation in log space: 0.25 * 0.1 means 2.5%, so that an outlier moves little. */
const STEP = 0.1;
const CLIP = 0.25;
/** Errors below this move nothing that a clock could tell, as in simulation. */
const EXACT = 1e-9;

/** Tokens of knot k: 1, 2, 3, 4, 6, 8, 12, ... */
export function knotTokens(k: number): number {
  if (k === 0) return 1;
  const half = (k - 1) >> 1;
  return (k & 1) === 1 ? 2 << half : 3 << half;
}

/** The knot at or below `tokens`. */
function knotAt(tokens: number): number {
  if (tokens < 2) return 0;
  const power = 31 - Math.clz32(tokens);
  const k = 2 * power - 1;
  return tokens >= 3 << (power - 1) ? k + 1 : k;
}

export class CostCurve {
  /** [KNOTS] microseconds, never falling. */
  private readonly times = new Float64Array(KNOTS);
  /** [KNOTS] share of the running sum that each knot has. */
  private readonly parts = new Float64Array(KNOTS);
  /** [KNOTS] how many observations each knot made up, in all. */
  private readonly seen = new Float64Array(KNOTS);
  private sumUs = 0;
  /** The knots that the running sum has parts of. */
  private firstKnot = KNOTS;
  private lastKnot = 0;

  constructor(points: readonly CostPoint[]) {
    for (let k = 0; k < KNOTS; k++) this.times[k] = interpolate(points, knotTokens(k));
    this.keepMonotone();
  }

  /** Time of one expert with `tokens` >= 1 tokens. */
  timeUs(tokens: number): number {
    const k = knotAt(tokens);
    const from = knotTokens(k);
    const low = this.times[k] as number;
    if (tokens === from) return low;
    const to = knotTokens(k + 1);
    return low + (((this.times[k + 1] as number) - low) * (tokens - from)) / (to - from);
  }

  /** Starts the sum that one observation is compared with. */
  beginSum(): void {
    for (let k = this.firstKnot; k <= this.lastKnot; k++) this.parts[k] = 0;
    this.firstKnot = KNOTS;
    this.lastKnot = 0;
    this.sumUs = 0;
  }

  /** Adds an expert with `tokens` tokens to the sum. */
  addToSum(tokens: number): void {
    const k = knotAt(tokens);
    const from = knotTokens(k);
    const share = (tokens - from) / (knotTokens(k + 1) - from);
    const low = (this.times[k] as number) * (1 - share);
    const high = (this.times[k + 1] as number) * share;
    if (k < this.firstKnot) this.firstKnot = k;
    if (k + 1 > this.lastKnot) this.lastKnot = k + 1;
    this.parts[k] = (this.parts[k] as number) + low;
    this.parts[k + 1] = (this.parts[k + 1] as number) + high;
    this.sumUs += low + high;
  }

  /**
   * Moves the knots of the sum towards what was observed for it; multiplicative, so times stay positive. Knots of
   * which little was seen follow their neighbours, so that a profile that is wrong by a factor is mended as a whole.
   */
  correct(observedUs: number): void {
    if (!(observedUs > 0) || !(this.sumUs > 0)) return;
    const { times, parts, seen, firstKnot, lastKnot } = this;
    const error = Math.log(observedUs / this.sumUs);
    if (Math.abs(error) < EXACT) {
      for (let k = firstKnot; k <= lastKnot; k++) {
        seen[k] = (seen[k] as number) + (parts[k] as number) / this.sumUs;
      }
      return;
    }
    const step = STEP * Math.min(CLIP, Math.max(-CLIP, error));
    let centre = 0;
    for (let k = firstKnot; k <= lastKnot; k++) centre += (k * (parts[k] as number)) / this.sumUs;
    for (let k = 0; k < KNOTS; k++) {
      const share = (parts[k] as number) / this.sumUs;
      const follow = 1 / ((1 + (seen[k] as number)) * (1 + Math.abs(k - centre)));
      times[k] = (times[k] as number) * (1 + step * Math.max(Math.min(1, 2 * share), follow));
      seen[k] = (seen[k] as number) + share;
    }
    this.keepMonotone();
  }

  /** The curve at its knots up to `maxTokens`, for the profile. */
  points(maxTokens = 4096): CostPoint[] {
    const points: CostPoint[] = [];
    for (let k = 0; k < KNOTS && knotTokens(k) <= maxTokens; k++) {
      points.push({ tokens: knotTokens(k), timeUs: this.times[k] as number });
    }
    return points;
  }

  /** More tokens never take less time; of two knots that disagree the one of which less was seen gives way. */
  private keepMonotone(): void {
    const { times, seen } = this;
    for (let k = 1; k < KNOTS; k++) {
      let own = times[k] as number;
      if (own >= (times[k - 1] as number)) continue;
      for (let j = k - 1; j >= 0 && (times[j] as number) > (times[k] as number); j--) {
        if ((seen[j] as number) >= (seen[k] as number)) own = Math.max(own, times[j] as number);
      }
      times[k] = own;
      for (let j = k - 1; j >= 0 && (times[j] as number) > own; j--) times[j] = own;
    }
  }
}

/** Piecewise linear through the points; beyond the last one along the last segment, or in proportion to tokens. */
function interpolate(points: readonly CostPoint[], tokens: number): number {
  const first = points[0];
  const last = points[points.length - 1];
  if (first === undefined || last === undefined) return 0;
  if (tokens <= first.tokens) return first.timeUs;
  for (let i = 1; i < points.length; i++) {
    const low = points[i - 1];
    const high = points[i];
    if (low === undefined || high === undefined || tokens > high.tokens) continue;
    return low.timeUs + ((high.timeUs - low.timeUs) * (tokens - low.tokens)) / (high.tokens - low.tokens);
  }
  const before = points[points.length - 2];
  if (before === undefined) return (last.timeUs * tokens) / last.tokens;
  const slope = Math.max(0, (last.timeUs - before.timeUs) / (last.tokens - before.tokens));
  return last.timeUs + slope * (tokens - last.tokens);
}
