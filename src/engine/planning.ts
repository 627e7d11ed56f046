/**
 * Puts scheduler, cost model, expert cache and prefetcher together for one device. Called when a model is loaded (and
 * by the simulator); what they decide is in schedule/ and placement/.
 */
import type { DeviceInfo } from '../device/device.js';
import type { ModelSpec } from '../model/model-spec.js';
import { ExpertCache } from '../placement/expert-cache.js';
import { CostModel } from '../schedule/cost-model.js';
import type { CostProfile } from '../schedule/cost-profile.js';
import { Planner } from '../schedule/planner.js';
import type { PrefetcherOptions } from '../schedule/prefetcher.js';
import { createPrefetcher, createScheduler } from '../schedule/registry.js';

export type PlanningNames = { policy: string; prefetch: string; cachePolicy: string };

/** Numbers of the MoE layers, the most experts of one, and the most that a token chooses. */
export function moeShape(spec: ModelSpec): { layers: number[]; numExperts: number; topK: number } {
  const layers: number[] = [];
  let numExperts = 0;
  let topK = 0;
  spec.layers.forEach(({ ffn }, layer) => {
    if (ffn.kind !== 'moe') return;
    layers.push(layer);
    numExperts = Math.max(numExperts, ffn.numExperts);
    topK = Math.max(topK, ffn.numExpertsPerTok);
  });
  return { layers, numExperts, topK };
}

/** Throws OptionError for names that no policy, predictor or eviction rule has. */
export function createPlanner(
  info: DeviceInfo,
  spec: ModelSpec,
  names: PlanningNames,
  profile: CostProfile,
  prefetching: PrefetcherOptions = {},
): Planner {
  const { units, tpDegree, ndpGroups, expertBytes, expertSlots } = info;
  const { layers: moeLayers, numExperts } = moeShape(spec);
  const layers = spec.layers.length;
  const costs = new CostModel(profile, { units, tpDegree, expertBytes });
  const eviction = names.cachePolicy;
  const cache = new ExpertCache({ layers, numExperts, slots: expertSlots, expertBytes, eviction });
  const slotsPerLayer = moeLayers.length > 0 ? Math.floor(expertSlots / moeLayers.length) : 0;
  return new Planner({
    layers,
    numExperts,
    scheduler: createScheduler(names.policy, { numExperts, ndpGroups, slotsPerLayer }),
    cache,
    costs,
    prefetcher: createPrefetcher(names.prefetch, layers, cache, costs, prefetching),
  });
}
