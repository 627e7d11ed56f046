/**
 * The exact optimum of a scheduling instance by exhaustive search over all divisions; an independent second opinion
 * that shares no code with the policies. For each division the GPU's order is fixed: residents, prefetches on the lane,
 * on-demand transfers in descending GPU time, queued prefetches; `bestOrderUs` searches the orders too.
 */
import { GPU_PLACE, type LayerPlan } from '../../../src/schedule/plan.js';
import type { Instance } from './instances.js';

type Job = {
  expert: number;
  gpuUs: number;
  ndpUs: number;
  group: number;
  absent: boolean;
  /** Rank of its class in the GPU's order. */
  rank: number;
  arrivalUs: number;
};

function jobsOf({ work, residency, costs, shape }: Instance): Job[] {
  const jobs: Job[] = [];
  for (let i = 0; i < work.count; i++) {
    const tokens = work.tokenCounts[i] ?? 0;
    const group = (work.expertIds[i] ?? 0) % shape.ndpGroups;
    const absent = (residency.slots[i] ?? -1) < 0;
    const arrivalUs = residency.arrivalUs[i] ?? 0;
    const late = !absent && arrivalUs > residency.laneFreeUs;
    jobs.push({
      expert: work.expertIds[i] ?? -1,
      gpuUs: costs.gpuExpertUs(tokens),
      ndpUs: costs.ndpExpertUs(tokens, group),
      group,
      absent,
      rank: absent ? 2 : arrivalUs === 0 ? 0 : late ? 3 : 1,
      arrivalUs,
    });
  }
  return jobs.sort(
    (a, b) => a.rank - b.rank || (a.rank === 2 ? b.gpuUs - a.gpuUs : a.arrivalUs - b.arrivalUs),
  );
}

/** GPU finish time when it computes `jobs` in the given order, transfers in the same order. */
function gpuFinishUs(jobs: readonly Job[], { residency, costs, work }: Instance): number {
  const shared = costs.sharedExpertUs?.(work.tokens) ?? 0;
  let now = shared;
  let transfers = 0;
  for (const job of jobs) {
    if (job.absent) transfers++;
    let ready = job.arrivalUs;
    if (job.absent) ready = residency.laneFreeUs + transfers * costs.transferUs;
    if (job.rank === 3) ready += transfers * costs.transferUs;
    now = Math.max(now, ready) + job.gpuUs;
  }
  return jobs.length === 0 && shared === 0 ? 0 : now + costs.gpuOverheadUs;
}

/** Least makespan over all divisions, infeasible ones (more transfers than slots) left out. */
export function exactMakespanUs(instance: Instance): number {
  const jobs = jobsOf(instance);
  let best = Number.POSITIVE_INFINITY;
  for (let mask = 0; mask < 2 ** jobs.length; mask++) {
    best = Math.min(
      best,
      makespanUs(jobs, (i) => ((mask >> i) & 1) === 1, instance),
    );
  }
  return best;
}

function makespanUs(jobs: readonly Job[], isOnGpu: (i: number) => boolean, instance: Instance): number {
  const { residency, costs, shape } = instance;
  const loads = new Float64Array(shape.ndpGroups);
  const onGpu: Job[] = [];
  let copies = 0;
  jobs.forEach((job, i) => {
    if (isOnGpu(i)) {
      onGpu.push(job);
      if (job.absent) copies++;
    } else loads[job.group] = (loads[job.group] ?? 0) + job.ndpUs;
  });
  if (copies > residency.availableSlots) return Number.POSITIVE_INFINITY;
  const ndpUs = onGpu.length === jobs.length ? 0 : Math.max(...loads) + costs.ndpOverheadUs;
  return Math.max(ndpUs, gpuFinishUs(onGpu, instance));
}

/** Least GPU finish time over all orders of the instance's resident and absent experts, all of them on the GPU. */
export function bestOrderUs(instance: Instance): number {
  const jobs = jobsOf(instance);
  let best = Number.POSITIVE_INFINITY;
  const permute = (chosen: Job[], rest: Job[]): void => {
    if (rest.length === 0) best = Math.min(best, gpuFinishUs(chosen, instance));
    for (const [i, job] of rest.entries()) permute([...chosen, job], rest.toSpliced(i, 1));
  };
  permute([], jobs);
  return best;
}

/** What a plan takes by this file's own model of the machine. */
export function simulatedMakespanUs(instance: Instance, plan: LayerPlan): number {
  const jobs = jobsOf(instance);
  const onGpu = new Set<number>();
  for (let i = 0; i < plan.count; i++) if (plan.places[i] === GPU_PLACE) onGpu.add(plan.expertIds[i] ?? -1);
  return makespanUs(jobs, (i) => onGpu.has(jobs[i]?.expert ?? -1), instance);
}
