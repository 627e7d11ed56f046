/**
 * Baseline `gpu-on-demand`: every active expert is computed on the GPU; what is absent is copied when routed
 * ("MoE-OnDemand" in Hwang et al., Pre-gated MoE, ISCA 2024). Registered in registry.ts.
 * Differs where a layer has more absent experts than slots it may take: the rest, those with the fewest tokens, goes
 * to the NDP groups, because a plan names each slot once.
 */
import type { Residency } from '../../placement/residency.js';
import { LayerProblem } from '../layer-problem.js';
import type { LayerPlan, LayerWork } from '../plan.js';
import type { Costs, Scheduler, SchedulerShape } from '../scheduler.js';

export class GpuOnDemandScheduler implements Scheduler {
  readonly name = 'gpu-on-demand';
  private readonly problem: LayerProblem;
  private readonly onGpu: Uint8Array;

  constructor(shape: SchedulerShape) {
    this.problem = new LayerProblem(shape);
    this.onGpu = new Uint8Array(shape.numExperts);
  }

  plan(work: LayerWork, residency: Residency, costs: Costs, plan: LayerPlan): void {
    this.problem.load(work, residency, costs);
    this.problem.allOnGpu(this.onGpu);
    this.problem.write(this.onGpu, work, residency, plan);
  }
}
