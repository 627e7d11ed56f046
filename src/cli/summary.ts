/**
 * What a request cost, in a few lines for people: tokens, times, experts, devices. Called by run.ts and chat.ts,
 * printed on stderr. Lines fit 80 columns.
 */
import type { GenerateResult, PlanReport } from '../llm.js';
import { hitRate } from '../trace/stats.js';
import { formatBytes, formatCount, formatMs, formatRate, formatShare } from './format.js';

/** The lines of the summary, without colours. */
export function summaryLines(result: GenerateResult, info: PlanReport): string[] {
  return [...tokenLines(result), expertLine(result, info), ...gpuLines(result, info), unitLine(result, info)];
}

function tokenLines({ usage, timings, finishReason }: GenerateResult): string[] {
  const reused = usage.cachedPromptTokens > 0 ? `, ${usage.cachedPromptTokens} reused` : '';
  const computed = usage.promptTokens - usage.cachedPromptTokens;
  return [
    row('prefill', [
      `${formatCount(computed)} tokens${reused}`,
      formatRate(timings.prefillTokensPerSecond),
      `first token ${formatMs(timings.timeToFirstTokenMs)}`,
    ]),
    row('decode', [
      `${formatCount(usage.completionTokens)} tokens`,
      formatRate(timings.decodeTokensPerSecond),
      `p50 ${formatMs(timings.perTokenMs.p50)}, p95 ${formatMs(timings.perTokenMs.p95)}`,
      `end: ${finishReason}`,
    ]),
  ];
}

function expertLine({ experts }: GenerateResult, info: PlanReport): string {
  const used = `${formatCount(experts.activated)} used`;
  if (info.gpu === 'off') return row('experts', [used, 'all on the units']);
  return row('experts', [
    used,
    `GPU ${formatCount(experts.onGpu)}, units ${formatCount(experts.onNdp)}`,
    `policy ${info.policy}`,
  ]);
}

function gpuLines({ experts, devices }: GenerateResult, info: PlanReport): string[] {
  if (info.gpu === 'off') return [];
  const rate = formatShare(hitRate(experts.hits, experts.misses));
  return [
    row('cache', [
      `hit rate ${rate}`,
      `prefetched ${formatCount(experts.prefetched)}, used ${formatCount(experts.prefetchUsed)}`,
      `moved ${formatBytes(experts.bytesMoved)}`,
      ...(experts.guessable > 0
        ? [`next layer guessed ${formatShare(experts.guessed / experts.guessable)}`]
        : []),
    ]),
    row('gpu', [`busy ${formatMs(devices.gpuBusyMs)}`, `transfers ${formatMs(devices.transferBusyMs)}`]),
  ];
}

function unitLine({ devices }: GenerateResult, info: PlanReport): string {
  const busy = devices.unitBusyMs.reduce((sum, timeMs) => sum + timeMs, 0) / (devices.unitBusyMs.length || 1);
  return row('units', [
    `${info.units} x ${info.threadsPerUnit} threads, TP ${info.tpDegree}, ${info.isa}`,
    `busy ${formatMs(busy)}, imbalance ${devices.imbalance.toFixed(2)}`,
  ]);
}

function row(label: string, cells: string[]): string {
  return `${label.padEnd(8)} ${cells.join('  |  ')}`;
}
