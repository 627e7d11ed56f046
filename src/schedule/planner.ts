/**
 * One layer's decisions in the order in which they must be made: group the routing, ask the cache, let the policy
 * plan, take over the plan, choose prefetches, learn from observations. Called by engine/forward.ts on the engine's
 * thread, with the real device as with the simulated one; it never sees a device itself.
 *
 *   for each MoE layer:  planner.completeTransfers(device.completedTransfers(), now)
 *                        device.submitExperts(planner.plan(layer, routing, now))
 *                        planner.hint(device.lookahead()), where it guesses
 *                        for each of planner.prefetch(layer, now): device.submitPrefetch(...)
 *   after each step:     planner.observe(device.observations())
 *
 * Contract of the device: transfers of a submitted plan are made even where the step is aborted.
 */
import type { ExpertCache } from '../placement/expert-cache.js';
import type { CostModel, ObservedLayer } from './cost-model.js';
import {
  createLayerPlan,
  createLayerWork,
  groupRouting,
  type LayerPlan,
  type LayerWork,
  type RoutedTokens,
} from './plan.js';
import type { Prefetcher, PrefetchRequests } from './prefetcher.js';
import type { Scheduler } from './scheduler.js';

export type PlannerParts = {
  layers: number;
  numExperts: number;
  scheduler: Scheduler;
  cache: ExpertCache;
  costs: CostModel;
  prefetcher: Prefetcher;
};

export class Planner {
  readonly scheduler: Scheduler;
  readonly cache: ExpertCache;
  readonly costs: CostModel;
  readonly prefetcher: Prefetcher;
  private readonly work: LayerWork;
  /** [layers] kept until the layer is planned again, for observe and for inspection. */
  private readonly plans: LayerPlan[];

  constructor(parts: PlannerParts) {
    this.scheduler = parts.scheduler;
    this.cache = parts.cache;
    this.costs = parts.costs;
    this.prefetcher = parts.prefetcher;
    this.work = createLayerWork(parts.numExperts);
    this.plans = Array.from({ length: parts.layers }, () => createLayerPlan(parts.numExperts));
  }

  /** Takes note of arrived slabs; call before plan() with all that the device reports. */
  completeTransfers(slots: readonly number[], nowUs: number): void {
    for (const slot of slots) this.cache.completeTransfer(slot, nowUs);
  }

  /** Plans a layer; the result is what submitExperts takes and is valid until the layer is planned again. */
  plan(layer: number, routing: RoutedTokens, nowUs: number): LayerPlan {
    const { work, cache, costs } = this;
    groupRouting(layer, routing, work);
    const plan = this.lastPlan(layer);
    this.scheduler.plan(work, cache.beginPlan(work, nowUs), costs, plan);
    cache.commitPlan(plan, work.tokens, nowUs, costs.transferUs);
    this.prefetcher.observe(work);
    return plan;
  }

  /** Takes in a guess of a later layer's experts, likeliest first; call after plan(), before prefetch(). */
  hint({ layer, expertIds, count }: { layer: number; expertIds: Int32Array; count: number }): void {
    this.prefetcher.hint(layer, expertIds, count);
  }

  /** Prefetches to submit while `layer` computes; call after submitExperts. */
  prefetch(layer: number, nowUs: number): PrefetchRequests {
    return this.prefetcher.next(layer, nowUs);
  }

  /** Learns from the layers of the last completed step. */
  observe(observations: readonly (ObservedLayer & { layer: number })[]): void {
    for (const observed of observations) this.costs.observe(this.lastPlan(observed.layer), observed);
  }

  /** The layer's latest plan, with its prediction. */
  lastPlan(layer: number): LayerPlan {
    const plan = this.plans[layer];
    if (plan === undefined) throw new RangeError(`layer ${layer} of ${this.plans.length}`);
    return plan;
  }
}
