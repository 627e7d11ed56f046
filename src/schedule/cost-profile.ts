/**
 * The serialisable form of the cost model: what calibration measures at start, what a saved run hands to the next, and
 * what a hardware description of the simulator is turned into. Holds no state; cost-model.ts reads it.
 */
import { OptionError } from '../errors.js';

/** Time of one expert with `tokens` tokens; `tokens` ascending in a list of points. */
export type CostPoint = { tokens: number; timeUs: number };

export type CostProfile = {
  version: 1;
  /** GPU, slab in VRAM. */
  gpuExpert: CostPoint[];
  /** NDP group of `tpDegree` units, one list per measured degree. */
  ndpExpert: { tpDegree: number; points: CostPoint[] }[];
  /** GPU time of the shared expert, where the model has one. */
  sharedExpert?: CostPoint[];
  /** Transfer lane, one expert's slab. */
  transferUs: number;
  /** Fixed time of a layer that uses the GPU for experts. */
  gpuOverheadUs: number;
  /** Fixed time of a layer that uses NDP groups. */
  ndpOverheadUs: number;
};

/** Rates from which a first profile can be computed where nothing was measured per token count. */
export type DeviceRates = {
  /** Bytes of one expert's slab. */
  expertBytes: number;
  /** Floating-point operations of one token in one expert: 6 * hidden * intermediate. */
  flopsPerToken: number;
  gpuBandwidthGBs: number;
  gpuGflops: number;
  /** Of one NDP unit. */
  unitBandwidthGBs: number;
  unitGflops: number;
  /** Units an expert is cut over. */
  tpDegree: number;
  transferBandwidthGBs: number;
  transferLatencyUs?: number;
  gpuOverheadUs?: number;
  ndpOverheadUs?: number;
};

/** A profile from bandwidth and compute rates: an expert takes the longer of reading its slab and multiplying. */
export function profileFromRates(rates: DeviceRates): CostProfile {
  const roofline = (bandwidthGBs: number, gflops: number): CostPoint[] => {
    const readUs = rates.expertBytes / (bandwidthGBs * 1e3);
    const tokenUs = rates.flopsPerToken / (gflops * 1e3);
    const ridge = Math.max(1, readUs / tokenUs);
    const points = [{ tokens: 1, timeUs: Math.max(readUs, tokenUs) }];
    if (ridge > 1) points.push({ tokens: ridge, timeUs: readUs });
    points.push({ tokens: ridge + 4096, timeUs: (ridge + 4096) * tokenUs });
    return points;
  };
  const units = rates.tpDegree;
  const profile: CostProfile = {
    version: 1,
    gpuExpert: roofline(rates.gpuBandwidthGBs, rates.gpuGflops),
    ndpExpert: [
      { tpDegree: units, points: roofline(rates.unitBandwidthGBs * units, rates.unitGflops * units) },
    ],
    transferUs: rates.expertBytes / (rates.transferBandwidthGBs * 1e3) + (rates.transferLatencyUs ?? 0),
    gpuOverheadUs: rates.gpuOverheadUs ?? 0,
    ndpOverheadUs: rates.ndpOverheadUs ?? 0,
  };
  checkProfile(profile);
  return profile;
}

/** Throws OptionError naming the field where a profile is not usable. */
export function checkProfile(profile: CostProfile): void {
  if (profile.version !== 1) throw new OptionError('profile.version', '1', profile.version);
  checkPoints('profile.gpuExpert', profile.gpuExpert);
  if (profile.sharedExpert !== undefined) checkPoints('profile.sharedExpert', profile.sharedExpert);
  if (!Array.isArray(profile.ndpExpert) || profile.ndpExpert.length === 0) {
    throw new OptionError('profile.ndpExpert', 'a non-empty list', profile.ndpExpert);
  }
  profile.ndpExpert.forEach((curve, index) => {
    const field = `profile.ndpExpert[${index}]`;
    if (!Number.isInteger(curve.tpDegree) || curve.tpDegree < 1) {
      throw new OptionError(`${field}.tpDegree`, 'an integer >= 1', curve.tpDegree);
    }
    checkPoints(`${field}.points`, curve.points);
  });
  for (const name of ['transferUs', 'gpuOverheadUs', 'ndpOverheadUs'] as const) {
    const value = profile[name];
    if (!Number.isFinite(value) || value < 0)
      throw new OptionError(`profile.${name}`, 'a number >= 0', value);
  }
}

function checkPoints(field: string, points: readonly CostPoint[]): void {
  if (!Array.isArray(points) || points.length === 0) {
    throw new OptionError(field, 'a non-empty list of { tokens, timeUs }', points);
  }
  points.forEach((point, index) => {
    const before = index === 0 ? 0 : (points[index - 1]?.tokens ?? 0);
    if (!(point.tokens > before) || !Number.isFinite(point.tokens)) {
      throw new OptionError(`${field}[${index}].tokens`, `a number > ${before}`, point.tokens);
    }
    if (!(point.timeUs > 0) || !Number.isFinite(point.timeUs)) {
      throw new OptionError(`${field}[${index}].timeUs`, 'a number > 0', point.timeUs);
    }
  });
}
