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
  gpuExpertsUs: number;
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

export class CostModel implements Costs {
  readonly ndpGroups: number;
  transferUs: number;
  gpuOverheadUs: number;
  ndpOverheadUs: number;

  private readonly gpu: CostCurve;
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

  /** Learns from one layer: `plan` is what was submitted, `observed` what the device measured for it. */
  observe(plan: LayerPlan, observed: ObservedLayer): void {
    const gpuUsed = this.correctCurve(this.gpu, plan, GPU_PLACE, observed.gpuExpertsUs);
    let ndpBusyUs = 0;
    for (let group = 0; group < this.ndpGroups; group++) {
      const first = group * this.shape.tpDegree;
      let busyUs = 0;
      for (let unit = first; unit < first + (this.groupUnits[group] as number); unit++) {
        busyUs = Math.max(busyUs, observed.unitBusyUs[unit] ?? 0);
      }
      if (this.correctCurve(this.groups[group] as CostCurve, plan, group, busyUs)) {
        ndpBusyUs = Math.max(ndpBusyUs, busyUs);
      }
    }
    if (observed.transferBytes > 0 && observed.transferUs > 0) {
      this.transferUs = towards(
        this.transferUs,
        (observed.transferUs * this.shape.expertBytes) / observed.transferBytes,
      );
    }
    // Only layers that one side did alone tell that side's fixed time apart from waiting for the other.
    const copied = plan.prediction.transferUs > 0;
    if (gpuUsed && ndpBusyUs === 0 && !copied) {
      this.gpuOverheadUs = towards(
        this.gpuOverheadUs,
        Math.max(0, observed.makespanUs - observed.gpuExpertsUs),
      );
    } else if (!gpuUsed && ndpBusyUs > 0) {
      this.ndpOverheadUs = towards(this.ndpOverheadUs, Math.max(0, observed.makespanUs - ndpBusyUs));
    }
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
      ndpExpert,
      transferUs: this.transferUs,
      gpuOverheadUs: this.gpuOverheadUs,
      ndpOverheadUs: this.ndpOverheadUs,
    };
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
