/**
 * Measures what one expert costs on each side, with the loaded weights, in a bounded time: what the cost model starts
 * from. Called once when a model is loaded with a GPU lane; afterwards the model follows what steps observe.
 */
import type { DeviceInfo } from '../device/device.js';
import type { CostPoint, CostProfile } from '../schedule/cost-profile.js';

/** The measurements that native makes, microseconds. */
export type Measurements = {
  /** One expert of the first MoE layer with `tokens` tokens, on the GPU lane or on one NDP group. */
  measureExperts(onGpu: boolean, tokens: number): number;
  /** One expert's slab into a VRAM slot. */
  measureTransfer(): number;
};

/** Time for all measurements of a load. */
const BUDGET_MS = 240;
const TOKEN_COUNTS = [1, 4, 16, 64, 256];
const REPEATS = 3;
/** Fixed time of a layer with experts on one side, until observations tell better. */
const OVERHEAD_US = 5;

/** `nowMs` is a clock for the budget. */
export function calibrate(
  device: Measurements,
  info: DeviceInfo,
  maxTokens: number,
  nowMs: () => number = () => performance.now(),
): CostProfile {
  const startMs = nowMs();
  const transferUs = info.expertSlots > 0 ? device.measureTransfer() : 0;
  const gpuExpert: CostPoint[] = [];
  const points: CostPoint[] = [];
  let lastMs = 0;
  for (const tokens of TOKEN_COUNTS) {
    const beforeMs = nowMs();
    // Four times the tokens take at most four times the time of the count before.
    const fits = beforeMs - startMs + 4 * lastMs <= BUDGET_MS;
    if (tokens > maxTokens || (tokens > 1 && !fits)) break;
    const repeats = tokens === 1 || 4 * lastMs < BUDGET_MS / 10 ? REPEATS : 1;
    gpuExpert.push({ tokens, timeUs: best(repeats, () => device.measureExperts(true, tokens)) });
    points.push({ tokens, timeUs: best(repeats, () => device.measureExperts(false, tokens)) });
    lastMs = nowMs() - beforeMs;
  }
  return {
    version: 1,
    gpuExpert: rising(gpuExpert),
    ndpExpert: [{ tpDegree: info.tpDegree, points: rising(points) }],
    transferUs,
    gpuOverheadUs: OVERHEAD_US,
    ndpOverheadUs: OVERHEAD_US,
  };
}

/** Least of several measurements: whatever else runs on the machine only ever adds time. */
function best(repeats: number, measure: () => number): number {
  let least = Infinity;
  for (let i = 0; i < repeats; i++) least = Math.min(least, measure());
  return Math.max(least, MIN_US);
}

/** More tokens never cost less; a disturbed measurement must not say so. */
function rising(points: CostPoint[]): CostPoint[] {
  let least = 0;
  return points.map(({ tokens, timeUs }) => {
    least = Math.max(least, timeUs);
    return { tokens, timeUs: least };
  });
}

/** Resolution of the clock that measurements are made with. */
const MIN_US = 0.01;
