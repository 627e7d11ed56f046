/**
 * Adds up what steps cost: device times, schedule time, expert counts. forward.ts fills one StepCosts a step, each
 * request of the step adds it to its own, and result figures are made from the sums. Pure arithmetic.
 */
import { type LayerObservation, TIMED_OPS } from '../device/device.js';
import { gaps, imbalance, percentile, perSecond } from '../trace/stats.js';
import type { DeviceStats, ExpertStats, OpTimesMs, Timings } from './result.js';

export type StepCosts = {
  steps: number;
  /** Wall time of the steps. */
  stepUs: number;
  /** Planning in TypeScript: grouping, policy, cache, prefetcher. */
  scheduleUs: number;
  attentionUs: number;
  gpuExpertsUs: number;
  transferUs: number;
  /** [units] */
  unitBusyUs: Float64Array;
  /** [TIMED_OPS] */
  opUs: Float64Array;
  experts: ExpertStats;
};

export function noCosts(units: number): StepCosts {
  return {
    steps: 0,
    stepUs: 0,
    scheduleUs: 0,
    attentionUs: 0,
    gpuExpertsUs: 0,
    transferUs: 0,
    unitBusyUs: new Float64Array(units),
    opUs: new Float64Array(TIMED_OPS.length),
    experts: {
      activated: 0,
      onGpu: 0,
      onNdp: 0,
      hits: 0,
      misses: 0,
      prefetched: 0,
      prefetchUsed: 0,
      evictions: 0,
      guessable: 0,
      guessed: 0,
      bytesMoved: 0,
    },
  };
}

export function addCosts(sum: StepCosts, costs: StepCosts): void {
  for (const name of SCALARS) sum[name] += costs[name];
  addTo(sum.unitBusyUs, costs.unitBusyUs);
  addTo(sum.opUs, costs.opUs);
  for (const name of EXPERT_COUNTS) sum.experts[name] += costs.experts[name];
}

const SCALARS = ['steps', 'stepUs', 'scheduleUs', 'attentionUs', 'gpuExpertsUs', 'transferUs'] as const;
const EXPERT_COUNTS = Object.keys(noCosts(0).experts) as (keyof ExpertStats)[];

function addTo(sum: Float64Array, values: Float64Array): void {
  values.forEach((value, at) => {
    sum[at] = (sum[at] ?? 0) + value;
  });
}

/** Adds the device's own observations of one step. */
export function addObservations(
  costs: StepCosts,
  observations: readonly LayerObservation[],
  opTimesUs: Float64Array,
): void {
  addTo(costs.opUs, opTimesUs);
  for (const layer of observations) {
    costs.attentionUs += layer.attentionUs;
    costs.gpuExpertsUs += layer.gpuExpertsUs;
    costs.transferUs += layer.transferUs;
    addTo(costs.unitBusyUs, layer.unitBusyUs);
  }
}

/** Sets the expert counts to what the cache counted between two snapshots. */
export function setExpertCounts(costs: StepCosts, before: ExpertStats, after: ExpertStats): void {
  for (const name of EXPERT_COUNTS) costs.experts[name] = after[name] - before[name];
}

export function deviceStats(costs: StepCosts, hasGpu: boolean): DeviceStats {
  return {
    gpuBusyMs: hasGpu ? (costs.attentionUs + costs.gpuExpertsUs) / 1e3 : 0,
    attentionMs: costs.attentionUs / 1e3,
    transferBusyMs: costs.transferUs / 1e3,
    unitBusyMs: [...costs.unitBusyUs].map((busyUs) => busyUs / 1e3),
    opMs: Object.fromEntries(TIMED_OPS.map((op, at) => [op, (costs.opUs[at] ?? 0) / 1e3])) as OpTimesMs,
    imbalance: imbalance(costs.unitBusyUs),
    scheduleMs: costs.scheduleUs / 1e3,
    stepsMs: costs.stepUs / 1e3,
    steps: costs.steps,
  };
}

/** Moments of one request on the device's clock, microseconds. */
export type Moments = { arrivedUs: number; startedUs: number; tokenUs: readonly number[]; endedUs: number };

/** `prefillTokens`: tokens of the prompt that were computed. */
export function timings(moments: Moments, prefillTokens: number): Timings {
  const { arrivedUs, startedUs, tokenUs, endedUs } = moments;
  const firstUs = tokenUs[0] ?? endedUs;
  const decodeMs = ((tokenUs.at(-1) ?? firstUs) - firstUs) / 1e3;
  const prefillMs = (firstUs - startedUs) / 1e3;
  const perTokenMs = gaps(tokenUs).map((gapUs) => gapUs / 1e3);
  return {
    queueMs: (startedUs - arrivedUs) / 1e3,
    timeToFirstTokenMs: tokenUs.length > 0 ? (firstUs - arrivedUs) / 1e3 : 0,
    prefillMs,
    decodeMs,
    totalMs: (endedUs - arrivedUs) / 1e3,
    prefillTokensPerSecond: perSecond(prefillTokens, prefillMs),
    decodeTokensPerSecond: perSecond(perTokenMs.length, decodeMs),
    perTokenMs: { p50: percentile(perTokenMs, 0.5), p95: percentile(perTokenMs, 0.95) },
  };
}
