/**
 * A lower bound on the makespan of every division that uses both sides and beats the incumbent, and of every
 * completion of a partial one. For weights w >= 0 with sum 1 over the machines (GPU, transfers, each NDP group), the
 * makespan is at least the weighted mean of the machines' finish times, which separates into one term per expert: the
 * cheaper of its two choices (Lagrangian relaxation). Transfers are a machine that fills the incumbent's makespan
 * with as many transfers as LayerProblem.restrict allows. Good weights come from a few multiplicative updates.
 * Used by policy `balanced`.
 */
import { ABSENT, type LayerProblem } from '../layer-problem.js';

const FIRST_STEP = 1.5;

export class DualBound {
  gpuWeight = 0;
  /** Weighted time of one transfer. */
  transferTermUs = 0;
  /** [groups] */
  readonly groupWeights: Float64Array;
  /** Weighted fixed times, which every division that uses both sides has. */
  fixedUs = 0;
  /** [count + 1] along problem.order: sum of the cheaper terms from there on. */
  readonly restUs: Float64Array;

  private readonly groupTrial: Float64Array;
  private readonly groupUs: Float64Array;
  private transferWeight = 0;
  private limitUs = 0;
  private slotUs = 0;
  private floorUs = 0;
  private gpuUs = 0;
  private transfersUs = 0;

  constructor(
    private readonly problem: LayerProblem,
    numExperts: number,
  ) {
    this.groupWeights = new Float64Array(problem.groups);
    this.groupTrial = new Float64Array(problem.groups);
    this.groupUs = new Float64Array(problem.groups);
    this.restUs = new Float64Array(numExperts + 1);
  }

  /** Finds weights and fills restUs for an incumbent of `limitUs`; returns the bound of the whole problem. */
  compute(limitUs: number, rounds: number): number {
    const { problem, groupTrial } = this;
    const machines = 1 + problem.groups + (problem.transferLimit > 0 ? 1 : 0);
    let gpu = 1 / machines;
    let transfers = problem.transferLimit > 0 ? gpu : 0;
    this.limitUs = limitUs;
    this.slotUs = problem.transferLimit > 0 ? limitUs / problem.transferLimit : 0;
    this.floorUs = Number.NEGATIVE_INFINITY;
    groupTrial.fill(gpu);
    for (let round = 0; round < rounds; round++) {
      const value = this.relax(gpu, transfers);
      const floorUs = (value - transfers * limitUs) / (1 - transfers);
      if (floorUs > this.floorUs) this.keep(floorUs, gpu, transfers);
      // Towards the machines that finish late in the relaxed division.
      const step = FIRST_STEP / ((1 + 0.5 * round) * Math.max(value, 1e-9));
      gpu *= Math.exp(clip(step * (this.gpuUs - value)));
      transfers *= Math.exp(clip(step * (this.transfersUs - value)));
      let sum = gpu + transfers;
      for (let group = 0; group < problem.groups; group++) {
        const late = (this.groupUs[group] as number) - value;
        const weight = (groupTrial[group] as number) * Math.exp(clip(step * late));
        groupTrial[group] = weight;
        sum += weight;
      }
      gpu /= sum;
      transfers /= sum;
      for (let group = 0; group < problem.groups; group++) {
        groupTrial[group] = (groupTrial[group] as number) / sum;
      }
    }
    this.fillRest();
    return this.floorUs;
  }

  /** The weighted sum from which on no division with a makespan below `makespanUs` (<= compute's limit) is left. */
  cutUs(makespanUs: number): number {
    return (1 - this.transferWeight) * makespanUs + this.transferWeight * this.limitUs;
  }

  /** Weighted time of expert i on the GPU. */
  gpuTermUs(i: number): number {
    const termUs = this.gpuWeight * (this.problem.gpuUs[i] as number);
    return this.problem.kind[i] === ABSENT ? termUs + this.transferTermUs : termUs;
  }

  /** Weighted time of expert i in its NDP group. */
  ndpTermUs(i: number): number {
    return (this.groupWeights[this.problem.group[i] as number] as number) * (this.problem.ndpUs[i] as number);
  }

  /** Value of the relaxed problem; leaves each machine's finish time in its division. */
  private relax(gpu: number, transfers: number): number {
    const { problem, groupTrial, groupUs } = this;
    const transferTermUs = transfers * this.slotUs;
    let gpuUs = problem.gpuOverheadUs + problem.sharedUs;
    let count = 0;
    groupUs.fill(problem.ndpOverheadUs);
    for (let i = 0; i < problem.count; i++) {
      const group = problem.group[i] as number;
      const absent = problem.kind[i] === ABSENT;
      const ndpUs = problem.ndpUs[i] as number;
      const costUs = gpu * (problem.gpuUs[i] as number) + (absent ? transferTermUs : 0);
      if (problem.gpuAllowed[i] === 0 || costUs > (groupTrial[group] as number) * ndpUs) {
        groupUs[group] = (groupUs[group] as number) + ndpUs;
        continue;
      }
      gpuUs += problem.gpuUs[i] as number;
      if (absent) count++;
    }
    this.gpuUs = gpuUs;
    this.transfersUs = count * this.slotUs;
    let value = gpu * gpuUs + transfers * this.transfersUs;
    for (let group = 0; group < problem.groups; group++) {
      value += (groupTrial[group] as number) * (groupUs[group] as number);
    }
    return value;
  }

  private keep(floorUs: number, gpu: number, transfers: number): void {
    const { problem } = this;
    this.floorUs = floorUs;
    this.gpuWeight = gpu;
    this.transferWeight = transfers;
    this.transferTermUs = transfers * this.slotUs;
    this.groupWeights.set(this.groupTrial);
    // The weights' sum is 1, so those of the groups are what the other two leave.
    this.fixedUs = gpu * problem.gpuOverheadUs + (1 - gpu - transfers) * problem.ndpOverheadUs;
  }

  private fillRest(): void {
    const { problem, restUs } = this;
    restUs[problem.count] = 0;
    for (let at = problem.count - 1; at >= 0; at--) {
      const i = problem.order[at] as number;
      const ndpTermUs = this.ndpTermUs(i);
      const least = problem.gpuAllowed[i] === 0 ? ndpTermUs : Math.min(ndpTermUs, this.gpuTermUs(i));
      restUs[at] = (restUs[at + 1] as number) + least;
    }
  }
}

function clip(value: number): number {
  return Math.max(-3, Math.min(3, value));
}
