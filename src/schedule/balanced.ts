/**
 * Policy `balanced`: divides a layer's active experts between GPU and NDP groups so that the later of the finish times
 * is smallest, on-demand transfers included (the idea of load-balancing-aware scheduling in Wu et al. 2026, arXiv
 * 2601.03992; the method here is our own). Registered in registry.ts.
 * Steps: trivial divisions, greedy ones, local search, branch and bound with a node budget; the latter two are skipped
 * once the best division is within TOLERANCE of a lower bound. Exact up to TOLERANCE where the budget suffices.
 */
import type { Residency } from '../placement/residency.js';
import { BranchAndBound } from './balanced/branch-and-bound.js';
import { DualBound } from './balanced/dual-bound.js';
import { Greedy } from './balanced/greedy.js';
import { Incumbent } from './balanced/incumbent.js';
import { LocalSearch } from './balanced/local-search.js';
import { LayerProblem } from './layer-problem.js';
import type { LayerPlan, LayerWork } from './plan.js';
import type { Costs, Scheduler, SchedulerShape } from './scheduler.js';

/** Relative distance from the lower bound at which a division is good enough. */
export const TOLERANCE = 0.001;

/** Weight updates of the lower bound. */
const ROUNDS = 16;
/** Nodes of the branch and bound by active experts: up to EXACT all that matter, then ever less of a polish. */
const EXACT = 14;
const EXACT_NODES = 4000;
const SOME = 24;
const SOME_NODES = 1500;
const MANY = 64;
const MANY_NODES = 300;

export class BalancedScheduler implements Scheduler {
  readonly name = 'balanced';
  private readonly problem: LayerProblem;
  private readonly best: Incumbent;
  private readonly bound: DualBound;
  private readonly greedy: Greedy;
  private readonly localSearch: LocalSearch;
  private readonly branchAndBound: BranchAndBound;

  constructor(shape: SchedulerShape) {
    this.problem = new LayerProblem(shape);
    this.best = new Incumbent(this.problem, shape.numExperts);
    this.bound = new DualBound(this.problem, shape.numExperts);
    this.greedy = new Greedy(this.problem, this.best, shape.numExperts);
    this.localSearch = new LocalSearch(this.problem, this.best, shape.numExperts);
    this.branchAndBound = new BranchAndBound(this.problem, this.best, this.bound, shape.numExperts);
  }

  plan(work: LayerWork, residency: Residency, costs: Costs, plan: LayerPlan): void {
    const { problem, best } = this;
    problem.load(work, residency, costs);
    this.solve();
    problem.write(best.onGpu, work, residency, plan);
  }

  private solve(): void {
    const { problem, best } = this;
    best.reset();
    best.trial.fill(0, 0, problem.count);
    best.consider();
    if (problem.restrict(best.makespanUs) === 0) return;
    problem.allOnGpu(best.trial);
    if (best.consider() && problem.restrict(best.makespanUs) === 0) return;
    this.greedy.run();
    if (problem.restrict(best.makespanUs) === 0) return;
    if (problem.count > MANY) {
      this.localSearch.run();
      return;
    }
    // The bound is one for divisions that use both sides: what uses one side only was considered.
    const floorUs = this.bound.compute(best.makespanUs, ROUNDS);
    if (best.isWithin(floorUs, TOLERANCE)) return;
    this.localSearch.run();
    if (best.isWithin(floorUs, TOLERANCE)) return;
    this.branchAndBound.run(nodesFor(problem.count), TOLERANCE);
  }
}

function nodesFor(experts: number): number {
  if (experts <= EXACT) return EXACT_NODES;
  return experts <= SOME ? SOME_NODES : MANY_NODES;
}
