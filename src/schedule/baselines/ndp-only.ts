/**
 * Baseline `ndp-only`: every active expert is computed by its NDP group, whatever lies in VRAM. Registered in
 * registry.ts. The same division as without a GPU lane, and the reference for what the GPU brings.
 */
import type { Residency } from '../../placement/residency.js';
import { LayerProblem } from '../layer-problem.js';
import type { LayerPlan, LayerWork } from '../plan.js';
import type { Costs, Scheduler, SchedulerShape } from '../scheduler.js';

export class NdpOnlyScheduler implements Scheduler {
  readonly name = 'ndp-only';
  private readonly problem: LayerProblem;
  /** Stays zero. */
  private readonly onGpu: Uint8Array;

  constructor(shape: SchedulerShape) {
    this.problem = new LayerProblem(shape);
    this.onGpu = new Uint8Array(shape.numExperts);
  }

  plan(work: LayerWork, residency: Residency, costs: Costs, plan: LayerPlan): void {
    this.problem.load(work, residency, costs);
    this.problem.write(this.onGpu, work, residency, plan);
  }
}
