/**
 * Baseline `fiddler` (Kamahori et al., arXiv 2402.07033): what is resident is computed on the GPU; each absent expert
 * either by the CPU or, after its copy, by the GPU, whichever subset minimises max(sum of CPU times, sum of GPU times).
 * Registered in registry.ts; meant for one unit that is a CPU and for popular experts pinned in VRAM beforehand.
 * Taken: the objective, with the copy as part of an absent expert's GPU time (its copies do not overlap with compute).
 * The paper searches the subsets; here absent experts are taken in the order of the CPU time that a copy saves, which
 * is the best subset where all copies take equally long. Copies are not kept by the paper's system, see sim/systems.ts.
 */
import type { Residency } from '../../placement/residency.js';
import { ABSENT, LayerProblem } from '../layer-problem.js';
import type { LayerPlan, LayerWork } from '../plan.js';
import type { Costs, Scheduler, SchedulerShape } from '../scheduler.js';
import { sortIndices } from '../sort-indices.js';

export class FiddlerScheduler implements Scheduler {
  readonly name = 'fiddler';
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
    let gpuUs = 0;
    let cpuUs = 0;
    for (let i = 0; i < work.count; i++) {
      const absent = problem.kind[i] === ABSENT;
      onGpu[i] = absent ? 0 : 1;
      if (absent) cpuUs += problem.ndpUs[i] as number;
      else gpuUs += problem.gpuUs[i] as number;
      keys[i] = (problem.gpuUs[i] as number) - (problem.ndpUs[i] as number);
    }
    sortIndices(order, keys, work.count);
    let copies = 0;
    for (let at = 0; at < work.count && copies < problem.transferLimit; at++) {
      const i = order[at] as number;
      if (onGpu[i] === 1) continue;
      const nextGpuUs = gpuUs + (problem.gpuUs[i] as number) + problem.transferUs;
      const nextCpuUs = cpuUs - (problem.ndpUs[i] as number);
      if (Math.max(nextGpuUs, nextCpuUs) >= Math.max(gpuUs, cpuUs)) break;
      onGpu[i] = 1;
      gpuUs = nextGpuUs;
      cpuUs = nextCpuUs;
      copies++;
    }
    problem.write(onGpu, work, residency, plan);
  }
}
