/**
 * Baseline `duplex` (Yun et al., Duplex, MICRO 2024, arXiv 2409.01141): the processor is chosen by arithmetic intensity
 * (operations per byte), and experts with few and with many tokens are computed side by side. Registered in
 * registry.ts; meant for tpDegree 1.
 * Taken: experts in descending token count go to the GPU as long as that shortens the layer, judged by compute times
 * alone. Differs by the box: Duplex has all weights in memory that both processors read, so its choice knows no
 * transfers; here the GPU's experts must be copied, and the layer pays for it. The paper leaves boxes with a link open.
 */
import type { Residency } from '../../placement/residency.js';
import { ABSENT, LayerProblem } from '../layer-problem.js';
import type { LayerPlan, LayerWork } from '../plan.js';
import type { Costs, Scheduler, SchedulerShape } from '../scheduler.js';
import { sortIndices } from '../sort-indices.js';

export class DuplexScheduler implements Scheduler {
  readonly name = 'duplex';
  private readonly problem: LayerProblem;
  private readonly onGpu: Uint8Array;
  private readonly order: Int32Array;
  private readonly keys: Float64Array;
  private readonly groupUs: Float64Array;

  constructor(shape: SchedulerShape) {
    this.problem = new LayerProblem(shape);
    this.onGpu = new Uint8Array(shape.numExperts);
    this.order = new Int32Array(shape.numExperts);
    this.keys = new Float64Array(shape.numExperts);
    this.groupUs = new Float64Array(shape.ndpGroups);
  }

  plan(work: LayerWork, residency: Residency, costs: Costs, plan: LayerPlan): void {
    const { problem } = this;
    problem.load(work, residency, costs);
    this.choose(work);
    problem.write(this.onGpu, work, residency, plan);
  }

  /** Moves experts of low NDP and GPU gain last; stops where the GPU would become the later side. */
  private choose(work: LayerWork): void {
    const { problem, onGpu, order, keys, groupUs } = this;
    groupUs.fill(0);
    for (let i = 0; i < work.count; i++) {
      const group = problem.group[i] as number;
      groupUs[group] = (groupUs[group] as number) + (problem.ndpUs[i] as number);
      keys[i] = i / work.count - (work.tokenCounts[i] as number);
      onGpu[i] = 0;
    }
    sortIndices(order, keys, work.count);
    // Memory-bound work belongs to the side that reads faster: one token is below any processor's balance.
    let gpuUs = 0;
    let transfers = 0;
    for (let at = 0; at < work.count; at++) {
      const i = order[at] as number;
      if ((work.tokenCounts[i] as number) < 2) break;
      const group = problem.group[i] as number;
      const nextGpuUs = gpuUs + (problem.gpuUs[i] as number);
      if (nextGpuUs > largest(groupUs)) break;
      if (problem.kind[i] === ABSENT && transfers++ >= problem.transferLimit) continue;
      onGpu[i] = 1;
      gpuUs = nextGpuUs;
      groupUs[group] = (groupUs[group] as number) - (problem.ndpUs[i] as number);
    }
  }
}

function largest(values: Float64Array): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) if ((values[i] as number) > most) most = values[i] as number;
  return most;
}
