/**
 * Predictor `lookahead`: what was activated so far, and before all else what a lookahead guesses for the next layer
 * (the next layer's router applied to this layer's hidden state, as in Fate, arXiv 2502.12224). Registered in
 * registry.ts. Guesses come through hint(); without them it behaves as `prefill`.
 * How often the guesses of each rank come true is learned online, and a guess is only worth a transfer where that
 * beats the use of what it would replace, so that the prefetch width follows the guesses' quality.
 */
import type { LayerWork } from '../plan.js';
import type { ExpertPredictor, PrefetchCandidates, SlotLookup } from './predictor.js';
import { PrefillPredictor } from './prefill.js';

/** Ranks whose precision is told apart; further ones share the last. */
const RANKS = 32;
/** Precision of a guess before any was seen to come true, and the weight of one observation. */
const FIRST_PRECISION = 0.5;
const GAIN = 0.02;

export class LookaheadPredictor implements ExpertPredictor {
  readonly name = 'lookahead';
  readonly scores: Float64Array;
  readonly noise: number;
  readonly isTimely = true;
  /** [RANKS] share of guesses that came true. */
  readonly precision = new Float64Array(RANKS).fill(FIRST_PRECISION);
  private readonly usual: PrefillPredictor;
  private readonly guesses: Int32Array;
  private guessCount = 0;
  private guessedLayer = -1;

  constructor(
    layers: number,
    private readonly numExperts: number,
  ) {
    this.usual = new PrefillPredictor(layers, numExperts);
    this.scores = this.usual.scores;
    this.noise = this.usual.noise;
    this.guesses = new Int32Array(numExperts);
  }

  hint(layer: number, expertIds: Int32Array, count: number): void {
    this.guessedLayer = layer;
    this.guessCount = Math.min(count, this.numExperts);
    for (let rank = 0; rank < this.guessCount; rank++) this.guesses[rank] = expertIds[rank] as number;
  }

  observe(work: LayerWork): void {
    if (work.layer === this.guessedLayer) this.learn(work);
    this.usual.observe(work);
  }

  candidates(
    layer: number,
    vram: SlotLookup,
    capacity: number,
    out: PrefetchCandidates,
    inTime = capacity,
  ): void {
    this.usual.candidates(layer, vram, capacity, out);
    if (this.guessedLayer <= layer) return;
    let added = 0;
    for (let rank = 0; rank < this.guessCount && added < inTime; rank++) {
      const expert = this.guesses[rank] as number;
      if (vram.slotOf(this.guessedLayer, expert) >= 0) continue;
      added++;
      const key = this.guessedLayer * this.numExperts + expert;
      const score = (this.scores[key] as number) + (this.precision[Math.min(rank, RANKS - 1)] as number);
      insert(out, key, score, capacity);
    }
  }

  private learn(work: LayerWork): void {
    for (let rank = 0; rank < this.guessCount; rank++) {
      const bucket = Math.min(rank, RANKS - 1);
      const hit = includes(work, this.guesses[rank] as number) ? 1 : 0;
      const known = this.precision[bucket] as number;
      this.precision[bucket] = known + GAIN * (hit - known);
    }
    this.guessedLayer = -1;
  }
}

function includes(work: LayerWork, expert: number): boolean {
  for (let i = 0; i < work.count; i++) if (work.expertIds[i] === expert) return true;
  return false;
}

/** Keeps `out` sorted by descending score; a key that it holds already is moved up. */
function insert(out: PrefetchCandidates, key: number, score: number, capacity: number): void {
  let at = out.keys.subarray(0, out.count).indexOf(key);
  if (at < 0) {
    if (out.count === capacity && score <= (out.scores[capacity - 1] as number)) return;
    at = out.count < capacity ? out.count++ : capacity - 1;
  }
  for (; at > 0 && (out.scores[at - 1] as number) < score; at--) {
    out.scores[at] = out.scores[at - 1] as number;
    out.keys[at] = out.keys[at - 1] as number;
  }
  out.scores[at] = score;
  out.keys[at] = key;
}
