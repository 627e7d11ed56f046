/**
 * The best division found so far, and the one being tried. Shared by the steps of policy `balanced`.
 * Among equal makespans the division with fewer on-demand transfers is kept: they take the lane from prefetches.
 */
import type { LayerProblem } from '../layer-problem.js';

export class Incumbent {
  makespanUs = Number.POSITIVE_INFINITY;
  transfers = 0;
  /** [count] 1 where the GPU computes the expert. */
  readonly onGpu: Uint8Array;
  /** [count] filled by a step before consider(). */
  readonly trial: Uint8Array;

  constructor(
    private readonly problem: LayerProblem,
    numExperts: number,
  ) {
    this.onGpu = new Uint8Array(numExperts);
    this.trial = new Uint8Array(numExperts);
  }

  reset(): void {
    this.makespanUs = Number.POSITIVE_INFINITY;
    this.transfers = 0;
  }

  /** Takes the trial over where it is better; tells whether it was. */
  consider(): boolean {
    const makespanUs = this.problem.evaluate(this.trial);
    const gain = this.makespanUs - makespanUs;
    const least = 1e-9 * makespanUs;
    if (gain < -least || Number.isNaN(gain)) return false;
    if (gain <= least && this.problem.transfers >= this.transfers) return false;
    this.makespanUs = makespanUs;
    this.transfers = this.problem.transfers;
    for (let i = 0; i < this.problem.count; i++) this.onGpu[i] = this.trial[i] as number;
    return true;
  }

  isWithin(floorUs: number, tolerance: number): boolean {
    return this.makespanUs <= floorUs * (1 + tolerance);
  }
}
