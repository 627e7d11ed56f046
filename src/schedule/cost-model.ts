/**
 * What a layer's experts cost on each side, in microseconds: starts from a profile measured at load and follows what
 * the device observes. Read by the policies through the Costs interface, fed by planner.ts after each step.
 * Corrections are small and clipped in log space, so that one preempted layer does not move a plan; each quantity is
 * learned from observations of its own lane, so that a changed plan does not feed back into the estimate.
 */
import { OptionError } from '../errors.js';
import { CostCurve } from './cost-curve.js';
import { type CostPoint, type CostProfile, checkProfile } from './cost-profile.js';
import { GPU_PLACE, type LayerPlan } from './plan.js';
import type { Costs } from './scheduler.js';

/** The part of device.ts' LayerObservation that the model learns from. */
export type ObservedLayer = {
  /** Of routed experts. */
  gpuExpertsUs: number;
  /** Of the shared expert; absent or 0 where there is none. */
  sharedExpertUs?: number;
  unitBusyUs: Float64Array;
  transferUs: number;
  transferBytes: number;
  makespanUs: number;
};

export type CostShape = {
  units: number;
  /** Units an expert is cut over; groups are ceil(units / tpDegree), the last may have fewer units. */
  tpDegree: number;
  /** Bytes of one expert's slab. */
  expertBytes: number;
};

/** Share of a new value in the running estimates of single quantities. */
const GAIN = 0.05;
/** Ratio of finish times from which one side is taken to have decided the makespan. */
const CLEARLY = 1.25;

export class CostModel implements Costs {
  readonly ndpGroups: number;
  transferUs: number;
  gpuOverheadUs: number;
  ndpOverheadUs: number;

  private readonly gpu: CostCurve;
  private shared: CostCurve | undefined;
  /** [ndpGroups] groups of equal size share a curve. */
  private readonly groups: CostCurve[] = [];
  private readonly groupUnits: number[] = [];

  constructor(
    profile: CostProfile,
    private readonly shape: CostShape,
  ) {
    checkProfile(profile);
    const { units, tpDegree } = shape;
    if (!Number.isInteger(tpDegree) || tpDegree < 1 || tpDegree > units) {
      throw new OptionError('tpDegree', `an integer from 1 to ${units}`, tpDegree);
    }
    this.ndpGroups = Math.ceil(units / tpDegree);
    this.gpu = new CostCurve(profile.gpuExpert);
    if (profile.sharedExpert !== undefined) this.shared = new CostCurve(profile.sharedExpert);
    this.transferUs = profile.transferUs;
    this.gpuOverheadUs = profile.gpuOverheadUs;
    this.ndpOverheadUs = profile.ndpOverheadUs;
    const full = new CostCurve(pointsFor(profile, tpDegree));
    for (let group = 0; group < this.ndpGroups; group++) {
      const size = Math.min(tpDegree, units - group * tpDegree);
      this.groupUnits.push(size);
      this.groups.push(size === tpDegree ? full : new CostCurve(pointsFor(profile, size)));
    }
  }

  gpuExpertUs(tokens: number): number {
    return this.gpu.timeUs(tokens);
  }

  ndpExpertUs(tokens: number, group: number): number {
    return (this.groups[group] as CostCurve).timeUs(tokens);
  }

  sharedExpertUs(tokens: number): number {
    return this.shared?.timeUs(tokens) ?? 0;
  }

  /** Learns from one layer: `plan` is what was submitted, `observed` what the device measured for it. */
  observe(plan: LayerPlan, observed: ObservedLayer): void {
    if (plan.count === 0) return;
    const gpuUsed = this.correctCurve(this.gpu, plan, GPU_PLACE, observed.gpuExpertsUs);
    const ndpBusyUs = this.observeGroups(plan, observed.unitBusyUs);
    const sharedUs = observed.sharedExpertUs ?? 0;
    if (sharedUs > 0) this.observeShared(plan.tokens, sharedUs);
    if (observed.transferBytes > 0 && observed.transferUs > 0) {
      const slabs = observed.transferBytes / this.shape.expertBytes;
      this.transferUs = towards(this.transferUs, observed.transferUs / slabs);
    }
    const gpuBusyUs = (gpuUsed ? observed.gpuExpertsUs : 0) + sharedUs;
    this.observeOverheads(plan, observed.makespanUs, gpuBusyUs, ndpBusyUs);
  }

  /** The current estimates, from which an equal model can be made. */
  profile(): CostProfile {
    const ndpExpert: CostProfile['ndpExpert'] = [];
    this.groups.forEach((curve, group) => {
      const tpDegree = this.groupUnits[group] ?? this.shape.tpDegree;
      if (!ndpExpert.some((known) => known.tpDegree === tpDegree)) {
        ndpExpert.push({ tpDegree, points: curve.points() });
      }
    });
    return {
      version: 1,
      gpuExpert: this.gpu.points(),
      ...(this.shared && { sharedExpert: this.shared.points() }),
      ndpExpert,
      transferUs: this.transferUs,
      gpuOverheadUs: this.gpuOverheadUs,
      ndpOverheadUs: this.ndpOverheadUs,
    };
  }

  /** Corrects the groups' curves; returns the busy time of the latest group. */
  private observeGroups(plan: LayerPlan, unitBusyUs: Float64Array): number {
    let latestUs = 0;
    for (let group = 0; group < this.ndpGroups; group++) {
      const first = group * this.shape.tpDegree;
      let busyUs = 0;
      for (let unit = first; unit < first + (this.groupUnits[group] as number); unit++) {
        busyUs = Math.max(busyUs, unitBusyUs[unit] ?? 0);
      }
      const used = this.correctCurve(this.groups[group] as CostCurve, plan, group, busyUs);
      if (used) latestUs = Math.max(latestUs, busyUs);
    }
    return latestUs;
  }

  private observeShared(tokens: number, timeUs: number): void {
    if (this.shared === undefined) {
      this.shared = new CostCurve([{ tokens: Math.max(1, tokens), timeUs }]);
      return;
    }
    this.shared.beginSum();
    this.shared.addToSum(Math.max(1, tokens));
    this.shared.correct(timeUs);
  }

  /**
   * What the makespan exceeds the busy time by is the fixed time of the side that finished last. Which one that was
   * is only known where the other was clearly done before, and the GPU's only without waits for transfers.
   */
  private observeOverheads(plan: LayerPlan, makespanUs: number, gpuBusyUs: number, ndpBusyUs: number): void {
    const gpuDoneUs = gpuBusyUs > 0 ? gpuBusyUs + this.gpuOverheadUs : 0;
    const ndpDoneUs = ndpBusyUs > 0 ? ndpBusyUs + this.ndpOverheadUs : 0;
    if (gpuDoneUs > CLEARLY * ndpDoneUs && plan.prediction.transferUs === 0) {
      this.gpuOverheadUs = towards(this.gpuOverheadUs, Math.max(0, makespanUs - gpuBusyUs));
    } else if (ndpDoneUs > CLEARLY * Math.max(gpuDoneUs, plan.prediction.gpuUs)) {
      this.ndpOverheadUs = towards(this.ndpOverheadUs, Math.max(0, makespanUs - ndpBusyUs));
    }
  }

  /** True where the plan has experts at `place`. */
  private correctCurve(curve: CostCurve, plan: LayerPlan, place: number, observedUs: number): boolean {
    curve.beginSum();
    let found = false;
    for (let i = 0; i < plan.count; i++) {
      if (plan.places[i] !== place) continue;
      curve.addToSum(plan.tokenCounts[i] as number);
      found = true;
    }
    if (found) curve.correct(observedUs);
    return found;
  }
}

/** Moves an estimate towards an observation; one observation counts as at most twice or half the estimate. */
function towards(estimate: number, observed: number): number {
  if (!(estimate > 0)) return observed * GAIN;
  return estimate + GAIN * (Math.min(2 * estimate, Math.max(estimate / 2, observed)) - estimate);
}

/** Points of a degree: measured, or those of the nearest measured degree in proportion to the units. */
function pointsFor(profile: CostProfile, tpDegree: number): CostPoint[] {
  let best = profile.ndpExpert[0];
  for (const curve of profile.ndpExpert) {
    const nearer =
      Math.abs(Math.log(curve.tpDegree / tpDegree)) <
      Math.abs(Math.log((best?.tpDegree ?? 1) / tpDegree)) - 1e-9;
    if (nearer) best = curve;
  }
  if (best === undefined) return [];
  const scale = best.tpDegree / tpDegree;
  return best.points.map((point) => ({ tokens: point.tokens, timeUs: point.timeUs * scale }));
}
