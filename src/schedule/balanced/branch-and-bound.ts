/**
 * Branch and bound for policy `balanced`: decides expert after expert in the GPU's order, so that the GPU's finish
 * time grows exactly, and cuts what DualBound shows to be no better than the incumbent. Of equal experts those that
 * go to the GPU come first, so that permutations are not searched. Ends after a number of nodes, not after a time:
 * equal inputs give equal plans.
 */
import { ABSENT, type LayerProblem } from '../layer-problem.js';
import type { DualBound } from './dual-bound.js';
import type { Incumbent } from './incumbent.js';

const NONE = -1;

export class BranchAndBound {
  private nodes = 0;
  private limitUs = 0;
  private cutUs = 0;
  private keep = 1;
  private readonly groupUs: Float64Array;
  /** [count] along the order: an equal expert decided before, or NONE. */
  private readonly equalBefore: Int32Array;

  constructor(
    private readonly problem: LayerProblem,
    private readonly best: Incumbent,
    private readonly bound: DualBound,
    numExperts: number,
  ) {
    this.groupUs = new Float64Array(problem.groups);
    this.equalBefore = new Int32Array(numExperts);
  }

  /** Looks for divisions better than the incumbent by more than `tolerance`; false where the nodes ran out. */
  run(nodes: number, tolerance: number): boolean {
    this.nodes = nodes;
    this.keep = 1 - tolerance;
    this.setLimit();
    this.groupUs.fill(0);
    this.markEqual();
    this.visit(0, this.problem.sharedUs, 0, this.bound.fixedUs);
    return this.nodes > 0;
  }

  /**
   * @param at experts decided
   * @param gpuUs when the GPU is done with those given to it
   * @param weightedNdpUs the bound's fixed part plus the weighted NDP times so far
   */
  private visit(at: number, gpuUs: number, transfers: number, weightedNdpUs: number): void {
    const { problem, bound } = this;
    const floorUs =
      bound.gpuWeight * gpuUs +
      bound.transferTermUs * transfers +
      weightedNdpUs +
      (bound.restUs[at] as number);
    if (floorUs >= this.cutUs || this.nodes <= 0) return;
    this.nodes--;
    if (at === problem.count) {
      if (this.best.consider()) this.setLimit();
      return;
    }
    const i = problem.order[at] as number;
    if (bound.gpuTermUs(i) <= bound.ndpTermUs(i)) {
      this.visitGpu(at, i, gpuUs, transfers, weightedNdpUs);
      this.visitNdp(at, i, gpuUs, transfers, weightedNdpUs);
    } else {
      this.visitNdp(at, i, gpuUs, transfers, weightedNdpUs);
      this.visitGpu(at, i, gpuUs, transfers, weightedNdpUs);
    }
  }

  /** Only divisions below the limit are of interest from now on. */
  private setLimit(): void {
    this.limitUs = this.best.makespanUs * this.keep;
    this.cutUs = this.bound.cutUs(this.limitUs);
  }

  private visitGpu(at: number, i: number, gpuUs: number, transfers: number, weightedNdpUs: number): void {
    const { problem } = this;
    const { trial } = this.best;
    if (problem.gpuAllowed[i] === 0) return;
    const equal = this.equalBefore[at] as number;
    if (equal !== NONE && trial[equal] === 0) return;
    const copies = problem.kind[i] === ABSENT ? transfers + 1 : transfers;
    if (copies > problem.transferLimit) return;
    const doneUs = Math.max(gpuUs, problem.readyUs(i, copies)) + (problem.gpuUs[i] as number);
    if (doneUs + problem.gpuOverheadUs >= this.limitUs) return;
    trial[i] = 1;
    this.visit(at + 1, doneUs, copies, weightedNdpUs);
  }

  private visitNdp(at: number, i: number, gpuUs: number, transfers: number, weightedNdpUs: number): void {
    const { problem, groupUs } = this;
    const group = problem.group[i] as number;
    const beforeUs = groupUs[group] as number;
    const loadUs = beforeUs + (problem.ndpUs[i] as number);
    if (loadUs + problem.ndpOverheadUs >= this.limitUs) return;
    groupUs[group] = loadUs;
    this.best.trial[i] = 0;
    this.visit(at + 1, gpuUs, transfers, weightedNdpUs + this.bound.ndpTermUs(i));
    groupUs[group] = beforeUs;
  }

  /** Equal experts have equal sort keys; only other groups lie between them. */
  private markEqual(): void {
    const { problem, equalBefore } = this;
    for (let at = 0; at < problem.count; at++) {
      const i = problem.order[at] as number;
      equalBefore[at] = NONE;
      for (let back = at - 1; back >= Math.max(0, at - 2 * problem.groups); back--) {
        const other = problem.order[back] as number;
        if (!this.areEqual(i, other)) continue;
        equalBefore[at] = other;
        break;
      }
    }
  }

  private areEqual(i: number, j: number): boolean {
    const { problem } = this;
    return (
      problem.kind[i] === problem.kind[j] &&
      problem.group[i] === problem.group[j] &&
      problem.gpuUs[i] === problem.gpuUs[j] &&
      problem.ndpUs[i] === problem.ndpUs[j] &&
      problem.arrivalUs[i] === problem.arrivalUs[j]
    );
  }
}
