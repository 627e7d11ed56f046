/**
 * The oracle: a planner that knows all routing in advance. What it reaches is possible on the box and out of reach of
 * any predictor, so that a result beside it says how much better predictions could still bring.
 * Slots are given up as Belady would (whatever is used last in the future), prefetches follow the uses to come in
 * their order, layers are divided by the exact policy, and planning takes no time (simulator.ts sees to that).
 */
import type { DeviceInfo } from '../device/device.js';
import { moeShape } from '../engine/planning.js';
import type { RoutingRecord } from '../engine/result.js';
import type { ModelSpec } from '../model/model-spec.js';
import type { Eviction } from '../placement/eviction.js';
import { registerEviction } from '../placement/eviction.js';
import { ExpertCache } from '../placement/expert-cache.js';
import type { ActiveExperts } from '../placement/residency.js';
import { CostModel } from '../schedule/cost-model.js';
import type { CostProfile } from '../schedule/cost-profile.js';
import type { LayerWork } from '../schedule/plan.js';
import { Planner } from '../schedule/planner.js';
import type { ExpertPredictor, PrefetchCandidates, SlotLookup } from '../schedule/predictors/predictor.js';
import { Prefetcher } from '../schedule/prefetcher.js';
import { createScheduler } from '../schedule/registry.js';

const EVICTION = 'belady';

/** A planner for one request with this routing. */
export function createOraclePlanner(
  info: DeviceInfo,
  spec: ModelSpec,
  profile: CostProfile,
  record: RoutingRecord,
): Planner {
  const { units, tpDegree, ndpGroups, expertBytes, expertSlots } = info;
  const { numExperts } = moeShape(spec);
  const layers = spec.layers.length;
  const costs = new CostModel(profile, { units, tpDegree, expertBytes });
  const cache = new ExpertCache({ layers, numExperts, slots: expertSlots, expertBytes, eviction: EVICTION });
  if (!(cache.eviction instanceof BeladyEviction))
    throw new TypeError('the oracle has another eviction rule');
  const future = new FutureUses(record, layers);
  cache.eviction.future = future;
  const slotsPerLayer = Math.floor(expertSlots / Math.max(1, record.layers.length));
  return new Planner({
    layers,
    numExperts,
    scheduler: createScheduler('balanced', { numExperts, ndpGroups, slotsPerLayer }),
    cache,
    costs,
    prefetcher: new Prefetcher(cache, costs, new OraclePredictor(future, cache.eviction), {
      margin: 0,
      maxOutstanding: OUTSTANDING,
    }),
  });
}

/** Copies under way at once: the lane never runs dry between two layers. */
const OUTSTANDING = 16;

/** When each (layer, expert) pair is used, in steps of one layer of one token: position * layers + layer. */
class FutureUses {
  readonly numExperts: number;
  /** Time of the layer that is computed now. */
  now = 0;
  /** [layers * numExperts] next use at or after `now`; Infinity where there is none. */
  readonly next: Float64Array;
  /** Uses of each pair, ascending, and how many of them are over. */
  private readonly uses: number[][];
  private readonly over: Int32Array;
  private position = 0;

  constructor(
    readonly record: RoutingRecord,
    readonly layers: number,
  ) {
    this.numExperts = record.numExperts;
    const pairs = layers * record.numExperts;
    this.uses = Array.from({ length: pairs }, () => []);
    this.over = new Int32Array(pairs);
    record.layers.forEach((layer, index) => {
      for (let token = 0; token < record.tokens; token++) {
        const at = (token * record.layers.length + index) * record.topK;
        for (let k = 0; k < record.topK; k++) {
          const key = layer * record.numExperts + (record.ids[at + k] as number);
          (this.uses[key] as number[]).push(token * layers + layer);
        }
      }
    });
    this.next = Float64Array.from(this.uses, (uses) => uses[0] ?? Number.POSITIVE_INFINITY);
  }

  /** A layer of a step of `tokens` tokens is computed; its uses are over. */
  pass(layer: number, tokens: number): void {
    const { record, layers, next, uses, over } = this;
    if (layer === record.layers[0]) {
      this.position = this.nextPosition;
      this.nextPosition = this.position + tokens;
    }
    this.now = this.position * layers + layer;
    const end = (this.nextPosition - 1) * layers + layer;
    const base = layer * this.numExperts;
    for (let key = base; key < base + this.numExperts; key++) {
      const own = uses[key] as number[];
      let at = over[key] as number;
      while (at < own.length && (own[at] as number) <= end) at++;
      over[key] = at;
      next[key] = own[at] ?? Number.POSITIVE_INFINITY;
    }
  }

  private nextPosition = 0;
}

/** Leaves first: what is used last in the future. */
class BeladyEviction implements Eviction {
  readonly name = EVICTION;
  readonly priorities: Float64Array;
  future: FutureUses | undefined;

  constructor(layers: number, numExperts: number) {
    this.priorities = new Float64Array(layers * numExperts);
  }

  /** The planner calls this last for a layer: its uses are over then. */
  observe(work: ActiveExperts, tokens: number): void {
    this.future?.pass(work.layer, tokens);
    const base = work.layer * (this.future?.numExperts ?? 0);
    for (let i = 0; i < (this.future?.numExperts ?? 0); i++) {
      this.priorities[base + i] = -(this.future?.next[base + i] ?? 0);
    }
  }

  admit(): void {}
}

registerEviction({
  name: EVICTION,
  description: 'what is used last in the future leaves first (simulator only)',
  create: (layers, numExperts) => new BeladyEviction(layers, numExperts),
});

/** Copies what is used next and not there, as long as something used later can go. */
class OraclePredictor implements ExpertPredictor {
  readonly name = 'oracle';
  readonly noise = 0;
  readonly scores: Float64Array;
  /** Where the search for the next absent use goes on: token, index of layer, k. */
  private frontToken = 0;
  private frontLayer = 0;

  constructor(
    private readonly future: FutureUses,
    eviction: BeladyEviction,
  ) {
    this.scores = eviction.priorities;
  }

  observe(_work: LayerWork): void {}

  candidates(_layer: number, vram: SlotLookup, capacity: number, out: PrefetchCandidates): void {
    const { record, layers, now } = this.future;
    out.count = 0;
    const first = Math.floor(now / layers);
    if (this.frontToken * layers + (record.layers[this.frontLayer] ?? 0) <= now) {
      this.frontToken = first;
      this.frontLayer = record.layers.findIndex((layer) => first * layers + layer > now);
      if (this.frontLayer < 0) {
        this.frontToken++;
        this.frontLayer = 0;
      }
    }
    let token = this.frontToken;
    let index = this.frontLayer;
    const last = Math.min(record.tokens, first + HORIZON_TOKENS);
    let settled = true;
    while (token < last && out.count < capacity) {
      const missing = this.addMissing(token, index, vram, capacity, out);
      if (settled && missing === 0) {
        this.frontToken = token;
        this.frontLayer = index;
      } else settled = false;
      index++;
      if (index === record.layers.length) {
        index = 0;
        token++;
      }
    }
  }

  private addMissing(
    token: number,
    index: number,
    vram: SlotLookup,
    capacity: number,
    out: PrefetchCandidates,
  ): number {
    const { record, numExperts, layers } = this.future;
    const layer = record.layers[index] as number;
    const at = (token * record.layers.length + index) * record.topK;
    let missing = 0;
    for (let k = 0; k < record.topK; k++) {
      const expert = record.ids[at + k] as number;
      if (vram.slotOf(layer, expert) >= 0) continue;
      missing++;
      if (out.count === capacity) continue;
      out.keys[out.count] = layer * numExperts + expert;
      out.scores[out.count] = -(token * layers + layer);
      out.count++;
    }
    return missing;
  }
}

/** Tokens that the search looks ahead at most; beyond it nothing worth a copy is left to find in time. */
const HORIZON_TOKENS = 64;
