/**
 * Rates of the last seconds from the engine's sums: tokens, hit rate, bandwidths, busy shares. Used by metrics.ts and
 * stats.ts, so that both tell the same. Pure arithmetic; 0 where nothing happened.
 */
import type { EngineStats, PlanReport } from '../llm.js';
import { bandwidthGBs, hitRate, perSecond } from '../trace/stats.js';

export type Rates = {
  tokensPerSecond: number;
  promptTokensPerSecond: number;
  batchSize: number;
  /** Hits over hits and misses of the GPU lane. */
  hitRate: number;
  /** Weights moved to VRAM, over all of the window. */
  transferGBs: number;
  /** Weights that steps read from host memory, over the time of the steps. */
  weightReadGBs: number;
};

export function rates({ recent }: EngineStats, info: PlanReport): Rates {
  const { devices, experts, windowMs } = recent;
  return {
    tokensPerSecond: perSecond(recent.generatedTokens, windowMs),
    promptTokensPerSecond: perSecond(recent.promptTokens, windowMs),
    batchSize: devices.steps > 0 ? recent.sequences / devices.steps : 0,
    hitRate: hitRate(experts.hits, experts.misses),
    transferGBs: bandwidthGBs(experts.bytesMoved, windowMs),
    weightReadGBs: bandwidthGBs(hostBytesRead(recent, info), devices.stepsMs),
  };
}

/** Each expert that the units compute is read once a step; without a GPU lane the dense weights are, too. */
function hostBytesRead({ devices, experts }: EngineStats['recent'], info: PlanReport): number {
  const dense = info.memory
    .filter(({ kind, place }) => kind === 'dense' && place === 'units')
    .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return experts.onNdp * info.expertBytes + devices.steps * dense;
}

/** Share of the window that each lane worked: "gpu", "transfer", "unit 0", ... */
export function busyShares({ recent }: EngineStats, info: PlanReport): Record<string, number> {
  const { devices, windowMs } = recent;
  const share = (busyMs: number) => (windowMs > 0 ? Math.min(1, busyMs / windowMs) : 0);
  const units = devices.unitBusyMs.map((busyMs, unit) => [`unit ${unit}`, share(busyMs)] as const);
  const lanes = [
    ['gpu', share(devices.gpuBusyMs)],
    ['transfer', share(devices.transferBusyMs)],
  ] as const;
  return Object.fromEntries(info.gpu === 'off' ? units : [...lanes, ...units]);
}
