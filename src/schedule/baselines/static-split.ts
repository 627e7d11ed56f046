/**
 * Baseline `static-split`: the first experts of each layer belong to the GPU for good, as many as VRAM has slots for;
 * all others belong to NDP. The usual "n experts a layer on the GPU" switch of offloading engines. Registered in
 * registry.ts. An expert of the GPU's share is copied when it is first routed and then stays, unless a prefetcher
 * that runs beside this policy takes its slot.
 */
import type { Residency } from '../../placement/residency.js';
import { ABSENT, LayerProblem } from '../layer-problem.js';
import type { LayerPlan, LayerWork } from '../plan.js';
import type { Costs, Scheduler, SchedulerShape } from '../scheduler.js';

export class StaticSplitScheduler implements Scheduler {
  readonly name = 'static-split';
  private readonly problem: LayerProblem;
  private readonly onGpu: Uint8Array;
  private readonly gpuExperts: number;

  constructor(shape: SchedulerShape) {
    this.problem = new LayerProblem(shape);
    this.onGpu = new Uint8Array(shape.numExperts);
    this.gpuExperts = Math.min(shape.slotsPerLayer, shape.numExperts);
  }

  plan(work: LayerWork, residency: Residency, costs: Costs, plan: LayerPlan): void {
    const { problem, onGpu } = this;
    problem.load(work, residency, costs);
    let transfers = 0;
    for (let i = 0; i < work.count; i++) {
      const absent = problem.kind[i] === ABSENT;
      const own = (work.expertIds[i] as number) < this.gpuExperts;
      onGpu[i] = own && !(absent && transfers === problem.transferLimit) ? 1 : 0;
      if (absent && onGpu[i] === 1) transfers++;
    }
    problem.write(onGpu, work, residency, plan);
  }
}
