/**
 * One layer's work and its plan, in typed arrays that are allocated once and reused each step. A LayerPlan has the
 * shape of device.ts' LayerAssignment and goes to submitExperts as it is. Written by groupRouting and the policies,
 * read by the device, the cache, the cost model and model.plan().
 */
import type { ActiveExperts, PlannedExperts } from '../placement/residency.js';

/** Place of an expert that the GPU computes; NDP places are group numbers >= 0. */
export const GPU_PLACE = -1;

/** Active experts of one layer, with the scratch that groupRouting needs. */
export type LayerWork = ActiveExperts & {
  /** Tokens of the step. */
  tokens: number;
  /** [numExperts] scratch, all zero between calls. */
  counts: Int32Array;
};

/** Predicted times of a plan from its submission, microseconds; 0 where a side has nothing to do. */
export type PlanPrediction = {
  /** Until the GPU has computed its last expert, waits included. */
  gpuUs: number;
  /** Until the last NDP group is done. */
  ndpUs: number;
  /** Until the last on-demand transfer is done. */
  transferUs: number;
  /** max(gpuUs, ndpUs) */
  makespanUs: number;
};

export type LayerPlan = PlannedExperts & {
  /** Tokens of the step. */
  tokens: number;
  prediction: PlanPrediction;
};

/** The part of device.ts' LayerRouting that grouping reads. */
export type RoutedTokens = {
  tokens: number;
  topK: number;
  /** [tokens * topK] */
  topkIds: Int32Array;
};

export function createLayerWork(numExperts: number): LayerWork {
  return {
    layer: 0,
    tokens: 0,
    count: 0,
    expertIds: new Int32Array(numExperts),
    tokenCounts: new Int32Array(numExperts),
    counts: new Int32Array(numExperts),
  };
}

export function createLayerPlan(numExperts: number): LayerPlan {
  return {
    layer: 0,
    tokens: 0,
    count: 0,
    expertIds: new Int32Array(numExperts),
    tokenCounts: new Int32Array(numExperts),
    places: new Int32Array(numExperts),
    slots: new Int32Array(numExperts),
    transfers: new Int32Array(numExperts),
    prediction: { gpuUs: 0, ndpUs: 0, transferUs: 0, makespanUs: 0 },
  };
}

/** Groups a layer's routing by expert into `work`: active experts ascending by id, with their token counts. */
export function groupRouting(layer: number, routing: RoutedTokens, work: LayerWork): void {
  const { counts, expertIds, tokenCounts } = work;
  const pairs = routing.tokens * routing.topK;
  const ids = routing.topkIds;
  for (let i = 0; i < pairs; i++) {
    const id = ids[i] as number;
    counts[id] = (counts[id] as number) + 1;
  }
  let active = 0;
  for (let expert = 0; expert < counts.length; expert++) {
    const tokens = counts[expert] as number;
    if (tokens === 0) continue;
    expertIds[active] = expert;
    tokenCounts[active] = tokens;
    counts[expert] = 0;
    active++;
  }
  work.layer = layer;
  work.tokens = routing.tokens;
  work.count = active;
}
