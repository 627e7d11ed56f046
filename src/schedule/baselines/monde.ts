/**
 * Baseline `monde` (Kim et al., MoNDE, DAC 2024, arXiv 2405.18832): the hottest experts by token count are copied to
 * the GPU, the cold ones computed whole near their memory. Registered in registry.ts; meant for tpDegree 1.
 * Taken: the GPU's share follows the ratio of the two sides' bandwidths, link against all NDP groups together. Left
 * open by the paper: what decode does, where every active expert has one token. This is one of its two readings; the
 * other one, all experts near data, is `ndp-only`. Ties go to the lower expert id.
 */
import type { Residency } from '../../placement/residency.js';
import { ABSENT, LayerProblem } from '../layer-problem.js';
import type { LayerPlan, LayerWork } from '../plan.js';
import type { Costs, Scheduler, SchedulerShape } from '../scheduler.js';
import { sortIndices } from '../sort-indices.js';

export class MondeScheduler implements Scheduler {
  readonly name = 'monde';
  private readonly problem: LayerProblem;
  private readonly onGpu: Uint8Array;
  private readonly order: Int32Array;
  private readonly keys: Float64Array;

  constructor(shape: SchedulerShape) {
    this.problem = new LayerProblem(shape);
    this.onGpu = new Uint8Array(shape.numExperts);
    this.order = new Int32Array(shape.numExperts);
    this.keys = new Float64Array(shape.numExperts);
  }

  plan(work: LayerWork, residency: Residency, costs: Costs, plan: LayerPlan): void {
    const { problem, onGpu, order, keys } = this;
    problem.load(work, residency, costs);
    for (let i = 0; i < work.count; i++) {
      keys[i] = i / work.count - (work.tokenCounts[i] as number);
      onGpu[i] = 0;
    }
    sortIndices(order, keys, work.count);
    const hot = Math.round(work.count * gpuShare(costs, problem.groups));
    let transfers = 0;
    for (let at = 0; at < hot; at++) {
      const i = order[at] as number;
      if (problem.kind[i] === ABSENT && transfers++ >= problem.transferLimit) continue;
      onGpu[i] = 1;
    }
    problem.write(onGpu, work, residency, plan);
  }
}

/** Link bandwidth over link and NDP bandwidth together, from the times that one expert's weights take on each. */
function gpuShare(costs: Costs, groups: number): number {
  let ndpRate = 0;
  for (let group = 0; group < groups; group++) ndpRate += 1 / costs.ndpExpertUs(1, group);
  const linkRate = 1 / costs.transferUs;
  return linkRate / (linkRate + ndpRate);
}
