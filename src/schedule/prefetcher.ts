/**
 * Decides which experts are copied to VRAM ahead of need, and into which slot. Called by planner.ts while a layer
 * computes. What is worth copying is the predictor's to say; this file keeps the transfer lane short, respects the
 * cache, and replaces a resident only by something better by a margin, so that copies do not chase noise.
 */
import type { ExpertCache } from '../placement/expert-cache.js';
import type { LayerWork } from './plan.js';
import type { ExpertPredictor, PrefetchCandidates } from './predictors/predictor.js';
import type { Costs } from './scheduler.js';

/** Prefetches to submit now, in order; the arrays are reused by the next call. */
export type PrefetchRequests = {
  count: number;
  layers: Int32Array;
  experts: Int32Array;
  slots: Int32Array;
};

export type PrefetcherOptions = {
  /** A resident is replaced where the candidate's score exceeds (1 + margin) * its score + the predictor's noise. */
  margin?: number;
  /** Most prefetches under way at once. */
  maxOutstanding?: number;
  /** Prefetches to have under way, whatever they bring; where it is missing, as many as keep the lane busy in time. */
  width?: number;
};

const DEFAULT_MARGIN = 0.1;
const DEFAULT_MAX_OUTSTANDING = 16;
/** Share of a new value in the running mean of the time between calls. */
const GAIN = 0.2;
/** Times between two calls within which a prefetch for the next layer must arrive. */
const PATIENCE = 1.5;

export class Prefetcher {
  private readonly margin: number;
  private readonly maxOutstanding: number;
  private readonly width: number | undefined;
  private readonly requests: PrefetchRequests;
  private readonly found: PrefetchCandidates;
  /** [numExperts] 1: guessed for guessedLayer. */
  private readonly guessed: Uint8Array;
  private guessedLayer = -1;
  private lastCallUs = Number.NaN;
  /** Running mean of the time between calls: what the lane must be kept busy for. */
  private gapUs = 0;

  /** @param predictor undefined = prefetch off */
  constructor(
    private readonly cache: ExpertCache,
    private readonly costs: Costs,
    readonly predictor: ExpertPredictor | undefined,
    options: PrefetcherOptions = {},
  ) {
    this.margin = options.margin ?? DEFAULT_MARGIN;
    this.width = options.width;
    this.maxOutstanding = Math.max(options.maxOutstanding ?? DEFAULT_MAX_OUTSTANDING, options.width ?? 0);
    const capacity = this.maxOutstanding;
    this.guessed = new Uint8Array(cache.numExperts);
    this.requests = {
      count: 0,
      layers: new Int32Array(capacity),
      experts: new Int32Array(capacity),
      slots: new Int32Array(capacity),
    };
    this.found = { count: 0, keys: new Int32Array(capacity), scores: new Float64Array(capacity) };
  }

  get name(): string {
    return this.predictor?.name ?? 'off';
  }

  observe(work: LayerWork): void {
    if (work.layer === this.guessedLayer) this.countFound(work);
    this.predictor?.observe(work);
    this.cache.rescored(work.layer);
  }

  /** Hands a lookahead's guess on to the predictor. */
  hint(layer: number, expertIds: Int32Array, count: number): void {
    this.predictor?.hint?.(layer, expertIds, count);
    this.guessed.fill(0);
    this.guessedLayer = layer;
    for (let i = 0; i < count; i++) this.guessed[expertIds[i] as number] = 1;
  }

  /** How many of a layer's experts were guessed before. */
  private countFound(work: LayerWork): void {
    const { stats } = this.cache;
    this.guessedLayer = -1;
    stats.guessable += work.count;
    for (let i = 0; i < work.count; i++) stats.guessed += this.guessed[work.expertIds[i] as number] as number;
  }

  /** Chooses prefetches to start while `layer` computes and admits them to the cache; the caller submits them. */
  next(layer: number, nowUs: number): PrefetchRequests {
    const { requests, predictor, cache } = this;
    requests.count = 0;
    if (predictor === undefined || cache.slots === 0) return requests;
    const online = this.room(nowUs);
    const room = this.width === undefined ? online : this.width - cache.lane.outstanding;
    if (room <= 0) return requests;
    predictor.candidates(
      layer,
      cache,
      room,
      this.found,
      this.width === undefined ? this.inTime(nowUs) : room,
    );
    for (let i = 0; i < this.found.count; i++) {
      if (!this.start(this.found.keys[i] as number, this.found.scores[i] as number, predictor, nowUs)) break;
    }
    return requests;
  }

  /** Prefetches that may still be started: enough to keep the lane busy until the next call, and one more. */
  private room(nowUs: number): number {
    if (nowUs > this.lastCallUs) {
      const gap = nowUs - this.lastCallUs;
      this.gapUs = this.gapUs === 0 ? gap : this.gapUs + GAIN * (Math.min(gap, 4 * this.gapUs) - this.gapUs);
    }
    this.lastCallUs = nowUs;
    const slabUs = this.costs.transferUs;
    if (this.predictor?.isTimely && slabUs > 0) {
      // One that does not start before the next call would be out of date when it does.
      const startable = Math.ceil((this.gapUs - this.laneUs(nowUs)) / slabUs);
      return Math.min(startable, this.maxOutstanding - this.cache.lane.outstanding);
    }
    const wanted = slabUs > 0 ? Math.ceil(this.gapUs / slabUs) + 1 : this.maxOutstanding;
    return Math.min(wanted, this.maxOutstanding) - this.cache.lane.outstanding;
  }

  /** Prefetches that would arrive while the next layer's experts can still wait for them. */
  private inTime(nowUs: number): number {
    const slabUs = this.costs.transferUs;
    if (slabUs <= 0) return this.maxOutstanding;
    return Math.max(0, Math.floor((PATIENCE * this.gapUs - this.laneUs(nowUs)) / slabUs));
  }

  /** Time until everything on the lane is done. */
  private laneUs(nowUs: number): number {
    const { lane } = this.cache;
    return lane.onDemandDelayUs(nowUs) + Math.max(0, lane.outstanding - 1) * this.costs.transferUs;
  }

  /** False where no slot is worth giving up for the pair. */
  private start(key: number, score: number, predictor: ExpertPredictor, nowUs: number): boolean {
    const { cache, requests } = this;
    const slot = cache.lowestSlot(predictor.scores);
    if (slot < 0) return false;
    const held = cache.keyOf(slot);
    if (held >= 0) {
      const least = (1 + this.margin) * (predictor.scores[held] as number) + predictor.noise;
      if (score <= least) return false;
    }
    const expert = key % cache.numExperts;
    const layer = (key - expert) / cache.numExperts;
    cache.admitPrefetch(layer, expert, slot, nowUs, this.costs.transferUs);
    requests.layers[requests.count] = layer;
    requests.experts[requests.count] = expert;
    requests.slots[requests.count] = slot;
    requests.count++;
    return true;
  }
}
