/**
 * Greedy divisions for policy `balanced`: starting with everything in the NDP groups, the fullest group gives an
 * expert to the GPU as long as the GPU does not become the last. Tried with several rankings, because it depends on
 * what is scarce: GPU time (absent experts rank beside residents, each by what it saves for the GPU time it takes),
 * the transfer lane (absent ones last, by what they save), or both (lane and GPU time add up).
 */
import { ABSENT, type LayerProblem, QUEUED } from '../layer-problem.js';
import { mendOrder } from '../sort-indices.js';
import type { Incumbent } from './incumbent.js';

const NONE = -1;

export class Greedy {
  /** [count] sort keys of rank() */
  private readonly keys: Float64Array;
  /** [count] indices by descending gain. */
  private readonly ranked: Int32Array;
  /** [groups] and [count]: per group a list of its experts by descending gain. */
  private readonly head: Int32Array;
  private readonly next: Int32Array;
  private readonly groupUs: Float64Array;

  constructor(
    private readonly problem: LayerProblem,
    private readonly best: Incumbent,
    numExperts: number,
  ) {
    this.keys = new Float64Array(numExperts);
    this.ranked = new Int32Array(numExperts);
    this.head = new Int32Array(problem.groups);
    this.next = new Int32Array(numExperts);
    this.groupUs = new Float64Array(problem.groups);
  }

  run(): void {
    this.fillAll(true);
    if (this.hasQueued()) this.fillAll(false);
  }

  private fillAll(queuedLast: boolean): void {
    const { transferLimit, transferUs } = this.problem;
    this.fill(true, 0, queuedLast);
    if (transferLimit === 0) return;
    this.fill(false, 0, queuedLast);
    this.fill(false, transferUs, queuedLast);
  }

  private hasQueued(): boolean {
    const { problem } = this;
    return problem.count > 0 && problem.kind[problem.order[problem.count - 1] as number] === QUEUED;
  }

  /**
   * Sorts by ascending key and splits the result by group. The key is minus NDP time over GPU time (and copyUs, where
   * the expert is absent), or minus NDP time for absent experts that come last.
   */
  private rank(absentLast: boolean, copyUs: number, queuedLast: boolean): void {
    const { problem, keys, ranked, head, next } = this;
    for (let i = 0; i < problem.count; i++) {
      const ndpUs = problem.ndpUs[i] as number;
      const kind = problem.kind[i] as number;
      if (kind === QUEUED && queuedLast) keys[i] = 2 * LIFT_US + (problem.arrivalUs[i] as number);
      else if (kind === ABSENT && absentLast) keys[i] = LIFT_US - ndpUs;
      else keys[i] = -ndpUs / ((problem.gpuUs[i] as number) + (kind === ABSENT ? copyUs : 0));
    }
    const near = absentLast ? problem.order : problem.byTokens;
    for (let at = 0; at < problem.count; at++) ranked[at] = near[at] as number;
    mendOrder(ranked, keys, problem.count);
    head.fill(NONE);
    for (let at = problem.count - 1; at >= 0; at--) {
      const i = ranked[at] as number;
      if (problem.gpuAllowed[i] === 0) continue;
      const group = problem.group[i] as number;
      next[i] = head[group] as number;
      head[group] = i;
    }
  }

  /** One greedy division; the parameters are those of rank(). */
  private fill(absentLast: boolean, copyUs: number, queuedLast: boolean): void {
    this.rank(absentLast, copyUs, queuedLast);
    const { problem, groupUs, best } = this;
    best.trial.fill(0, 0, problem.count);
    this.loadGroups();
    let workUs = problem.sharedUs;
    let readyUs = 0;
    let queuedUs = -LIFT_US;
    let transfers = 0;
    let group = this.fullest();
    for (let i = this.takeNext(group); i !== NONE; i = this.takeNext(group)) {
      const kind = problem.kind[i];
      const copies = kind === ABSENT ? transfers + 1 : transfers;
      const ownUs = problem.gpuUs[i] as number;
      let lastUs = readyUs;
      let lateUs = queuedUs;
      if (kind === QUEUED) lateUs = Math.max(lateUs, (problem.arrivalUs[i] as number) + ownUs);
      else lastUs = Math.max(lastUs, problem.readyUs(i, copies) + ownUs);
      const gpuUs = Math.max(workUs + ownUs, lastUs, lateUs + copies * problem.transferUs);
      const spanUs = problem.ndpOverheadUs + (groupUs[group] as number);
      if (copies > problem.transferLimit || gpuUs + problem.gpuOverheadUs >= spanUs) continue;
      best.trial[i] = 1;
      transfers = copies;
      workUs += ownUs;
      readyUs = lastUs;
      queuedUs = lateUs;
      groupUs[group] = (groupUs[group] as number) - (problem.ndpUs[i] as number);
      group = this.fullest();
    }
    best.consider();
  }

  /** Everything in its NDP group. */
  private loadGroups(): void {
    const { problem, groupUs } = this;
    groupUs.fill(0);
    for (let i = 0; i < problem.count; i++) {
      const group = problem.group[i] as number;
      groupUs[group] = (groupUs[group] as number) + (problem.ndpUs[i] as number);
    }
  }

  private fullest(): number {
    const { groupUs } = this;
    let fullest = 0;
    for (let group = 1; group < groupUs.length; group++) {
      if ((groupUs[group] as number) > (groupUs[fullest] as number)) fullest = group;
    }
    return fullest;
  }

  /** The group's next expert, taken off its list; NONE where there is none. */
  private takeNext(group: number): number {
    const i = this.head[group] as number;
    if (i !== NONE) this.head[group] = this.next[i] as number;
    return i;
  }
}

/** Longer than any time, and so more than minus any ratio. */
const LIFT_US = 1e9;
