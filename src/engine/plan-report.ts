/**
 * The report of model.plan(): what is placed where, in bytes, and why. Called by load.ts. Reports decisions made elsewhere; makes none.
 */
import type { DeviceInfo } from '../device/device.js';
import type { ModelSpec } from '../model/model-spec.js';
import type { PlacedBytes } from '../placement/placement.js';
import type { Planner } from '../schedule/planner.js';
import { moeShape } from './planning.js';
import type { PlanReport } from './result.js';
import type { Settings } from './settings.js';

/** The report of model.plan(). */
export function planReport(
  spec: ModelSpec,
  settings: Settings,
  info: DeviceInfo,
  memory: PlacedBytes[],
  planner: Planner | undefined,
  answers: Pick<PlanReport, 'toolCalls' | 'reasoning'>,
  warnings: readonly string[] = [],
): PlanReport {
  const { layers, numExperts, topK } = moeShape(spec);
  const { units, threadsPerUnit, tpDegree, ndpGroups, gpu, isa, expertSlots, expertBytes } = info;
  const { kvDtype, maxContext, maxSequences, policy, prefetch, cachePolicy } = settings;
  return {
    architecture: spec.architecture,
    layers: spec.layers.length,
    moeLayers: layers.length,
    numExperts,
    numExpertsPerTok: topK,
    units,
    threadsPerUnit,
    tpDegree,
    ndpGroups,
    gpu,
    isa,
    kvDtype,
    maxContext,
    maxSequences,
    ...answers,
    policy,
    prefetch,
    cachePolicy,
    memory,
    expertSlots,
    expertBytes,
    residents: planner?.cache.residents() ?? [],
    reasons: reasons(settings, info, layers.length * numExperts, planner),
    warnings: [...warnings],
  };
}

function reasons(
  settings: Settings,
  info: DeviceInfo,
  experts: number,
  planner: Planner | undefined,
): string[] {
  const { units, tpDegree, ndpGroups, expertSlots, expertBytes } = info;
  const cut =
    ndpGroups === 1
      ? `Each expert is cut over all ${units} unit(s), so whichever experts are routed to load them evenly.`
      : `Experts take turns over ${ndpGroups} groups of up to ${tpDegree} unit(s): expert e is on group e mod ${ndpGroups}.`;
  if (planner === undefined) {
    return [cut, 'There is no GPU lane: the units compute everything, and no policy has anything to decide.'];
  }
  const { costs } = planner;
  const [gpuUs, ndpUs] = [costs.gpuExpertUs(1).toFixed(1), costs.ndpExpertUs(1, 0).toFixed(1)];
  return [
    cut,
    `${settings.vramBytes} bytes of VRAM hold ${expertSlots} of ${experts} experts (${expertBytes} bytes each).`,
    `An expert with one token takes ${gpuUs} us on the GPU and ${ndpUs} us on an NDP group, a transfer ` +
      `${costs.transferUs.toFixed(1)} us; policy '${settings.policy}' weighs these for each layer.`,
    `Prefetch '${settings.prefetch}' and cache rule '${settings.cachePolicy}' choose what stays in VRAM.`,
    ...(settings.prefetch === 'lookahead' && settings.gpu !== 'host'
      ? [`This GPU path does not guess the next layer's experts: 'lookahead' acts as 'prefill'.`]
      : []),
  ];
}
