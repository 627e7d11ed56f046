/**
 * Local search for policy `balanced`: moves one expert, or exchanges one on the GPU with one in an NDP group, as long
 * as the makespan falls. Works on the incumbent; sums of each side reject most candidates before they are evaluated.
 */
import { ABSENT, type LayerProblem } from '../layer-problem.js';
import type { Incumbent } from './incumbent.js';

/** Work on evaluations in one plan, in experts looked at, so that its time is bounded. */
const MAX_WORK = 4000;
const NONE = -1;
const MANY = -2;

export class LocalSearch {
  private readonly gpuList: Int32Array;
  private readonly ndpList: Int32Array;
  private gpuCount = 0;
  private ndpCount = 0;
  private readonly groupUs: Float64Array;
  /** GPU time of the experts on the GPU, shared one included. */
  private workUs = 0;
  private transfers = 0;
  /** What GPU and groups must stay below, fixed times taken off. */
  private gpuLimitUs = 0;
  private groupLimitUs = 0;
  /** Group that is over the limit; NONE: none, MANY: no single change helps. */
  private fullGroup = NONE;
  private evaluations = 0;

  constructor(
    private readonly problem: LayerProblem,
    private readonly best: Incumbent,
    numExperts: number,
  ) {
    this.gpuList = new Int32Array(numExperts);
    this.ndpList = new Int32Array(numExperts);
    this.groupUs = new Float64Array(problem.groups);
  }

  run(): void {
    const evaluations = Math.ceil(MAX_WORK / Math.max(1, this.problem.count));
    this.evaluations = evaluations;
    do this.load();
    while (this.evaluations > 0 && this.fullGroup !== MANY && (this.moveOne() || this.exchange()));
  }

  /** Takes the incumbent as the division to improve. */
  private load(): void {
    const { problem, best, groupUs } = this;
    this.gpuCount = 0;
    this.ndpCount = 0;
    this.workUs = problem.sharedUs;
    this.transfers = 0;
    groupUs.fill(0);
    for (let i = 0; i < problem.count; i++) {
      best.trial[i] = best.onGpu[i] as number;
      if (best.onGpu[i] === 1) {
        this.gpuList[this.gpuCount++] = i;
        this.workUs += problem.gpuUs[i] as number;
        if (problem.kind[i] === ABSENT) this.transfers++;
      } else {
        const group = problem.group[i] as number;
        if (problem.gpuAllowed[i] === 1) this.ndpList[this.ndpCount++] = i;
        groupUs[group] = (groupUs[group] as number) + (problem.ndpUs[i] as number);
      }
    }
    const limitUs = best.makespanUs * (1 - 1e-6);
    this.gpuLimitUs = limitUs - problem.gpuOverheadUs;
    this.groupLimitUs = limitUs - problem.ndpOverheadUs;
    this.fullGroup = NONE;
    for (let group = 0; group < groupUs.length; group++) {
      if ((groupUs[group] as number) >= this.groupLimitUs)
        this.fullGroup = this.fullGroup === NONE ? group : MANY;
    }
  }

  /** One expert to the GPU where a group is full, else one to its group. */
  private moveOne(): boolean {
    const { problem, groupUs } = this;
    if (this.fullGroup === NONE) {
      for (let at = 0; at < this.gpuCount; at++) {
        const j = this.gpuList[at] as number;
        const loadUs = (groupUs[problem.group[j] as number] as number) + (problem.ndpUs[j] as number);
        if (loadUs < this.groupLimitUs && this.attempt(NONE, j)) return true;
      }
      return false;
    }
    for (let at = 0; at < this.ndpCount; at++) {
      const i = this.ndpList[at] as number;
      if (problem.group[i] !== this.fullGroup) continue;
      const loadUs = (groupUs[this.fullGroup] as number) - (problem.ndpUs[i] as number);
      const copies = problem.kind[i] === ABSENT ? this.transfers + 1 : this.transfers;
      if (loadUs >= this.groupLimitUs || copies > problem.transferLimit) continue;
      if (this.workUs + (problem.gpuUs[i] as number) < this.gpuLimitUs && this.attempt(i, NONE)) return true;
    }
    return false;
  }

  private exchange(): boolean {
    for (let at = 0; at < this.ndpCount && this.evaluations > 0; at++) {
      const i = this.ndpList[at] as number;
      const group = this.problem.group[i] as number;
      if ((this.fullGroup === NONE || this.fullGroup === group) && this.exchangeWith(i, group)) return true;
    }
    return false;
  }

  /** Tries expert i of `group` on the GPU in place of each one there. */
  private exchangeWith(i: number, group: number): boolean {
    const { problem, groupUs, gpuList, gpuCount, groupLimitUs } = this;
    const { gpuUs, ndpUs, kind } = problem;
    const leftUs = (groupUs[group] as number) - (ndpUs[i] as number);
    const leftFits = leftUs < groupLimitUs;
    const leastUs = this.workUs + (gpuUs[i] as number) - this.gpuLimitUs;
    const full = kind[i] === ABSENT && this.transfers === problem.transferLimit;
    for (let at = 0; at < gpuCount; at++) {
      const j = gpuList[at] as number;
      if ((gpuUs[j] as number) <= leastUs || (full && kind[j] !== ABSENT)) continue;
      const other = problem.group[j] as number;
      const loadUs = (other === group ? leftUs : (groupUs[other] as number)) + (ndpUs[j] as number);
      if (loadUs >= groupLimitUs || !(leftFits || other === group)) continue;
      if (this.attempt(i, j)) return true;
      if (this.evaluations <= 0) return false;
    }
    return false;
  }

  /** Tries i on the GPU and j in its NDP group (either may be NONE); keeps it where that is better. */
  private attempt(i: number, j: number): boolean {
    const { trial } = this.best;
    if (i !== NONE) trial[i] = 1;
    if (j !== NONE) trial[j] = 0;
    this.evaluations--;
    const better = this.best.consider();
    if (i !== NONE) trial[i] = 0;
    if (j !== NONE) trial[j] = 1;
    return better;
  }
}
