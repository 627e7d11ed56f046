/**
 * What a benchmark reports: the JSON object and the table of 80 columns, from measured rates, ceilings and the
 * workload's formulas. Pure; called by the bench command.
 */
import type { PlanReport } from '../../llm.js';
import { percentile } from '../../trace/stats.js';
import { formatBytes, formatCount, formatMs, formatShare } from '../format.js';
import type { Ceilings } from './machine.js';
import type { Repetition, StageTimes } from './runs.js';
import type { RequestShape, Workload } from './workload.js';

export type Spread = { median: number; min: number; max: number };

/** All that was measured. */
export type Measurements = {
  model: string;
  shape: RequestShape;
  info: PlanReport;
  workload: Workload;
  repetitions: readonly Repetition[];
  /** Before the first repetition and after each. */
  ceilings: readonly Ceilings[];
  /** Peaks of every instruction set that runs here, once. */
  peaks: Readonly<Record<string, Pick<Ceilings, 'int8GMACs' | 'floatGMACs'>>>;
  bufferBytes: number;
  stages: { prefill: StageTimes; decode: StageTimes };
  memory: { peakBytes: number; heldBytes: number };
  loadMs: number;
};

export type BenchReport = ReturnType<typeof benchReport>;

/** Rates, ceilings and the shares of them that were reached, as --json prints them. */
export function benchReport(measured: Measurements) {
  const { model, shape, info, workload, repetitions, ceilings, peaks, stages, memory } = measured;
  const { isa, architecture } = info;
  const bytesPerStep = workload.weightBytesPerStep + workload.kvBytesPerStep;
  // A step of a batch gives a token to each of its sequences.
  const bandwidths = repetitions.map(
    (run) => (run.decodeTokensPerSecond / shape.batch) * (bytesPerStep / 1e9),
  );
  const macsPerToken = workload.matmulMacs / (shape.batch * shape.promptTokens);
  const multiplies = repetitions.map((run) => (run.prefillTokensPerSecond * macsPerToken) / 1e9);
  const peakName = workload.int8Share >= 0.5 ? ('int8GMACs' as const) : ('floatGMACs' as const);
  const vnni = (peaks.avx512 ?? peaks.avxvnni)?.int8GMACs;
  const multiplyReached = spread(multiplies);
  return {
    model,
    architecture,
    ...shape,
    repetitions: repetitions.length,
    machine: machineOf(info),
    prefillTokensPerSecond: spread(repetitions.map((run) => run.prefillTokensPerSecond)),
    decodeTokensPerSecond: spread(repetitions.map((run) => run.decodeTokensPerSecond)),
    timeToFirstTokenMs: spread(repetitions.map((run) => run.timeToFirstTokenMs)),
    reached: { decodeBandwidthGBs: spread(bandwidths), prefillGMACs: multiplyReached },
    workload: { ...workload, bytesPerStep },
    ceilings: ceilingsOf(measured),
    shares: {
      /** Of the read bandwidth measured right before and after each repetition. */
      decodeBandwidth: shareOf(
        bandwidths,
        ceilings.map((each) => each.readBandwidthGBs),
      ),
      /** Of the peak of the instruction set in use: int8 for quantised models, else float. */
      prefillPeak: shareOf(
        multiplies,
        ceilings.map((each) => each[peakName]),
      ),
      prefillPeakKind: peakName === 'int8GMACs' ? 'int8' : 'float',
      /** Of the int8 peak without tiles, where that is another one. */
      ...(isa === 'amx' && peakName === 'int8GMACs' && vnni
        ? { prefillVnni: multiplyReached.median / vnni }
        : {}),
    },
    stages,
    orchestrationShare: stages.decode.orchestrationMs / sum(Object.values(stages.decode)),
    memory: { ...memory, ratio: memory.peakBytes / memory.heldBytes },
    loadMs: measured.loadMs,
  };
}

function ceilingsOf({ ceilings, peaks, bufferBytes, info }: Measurements) {
  return {
    readBandwidthGBs: spread(ceilings.map((each) => each.readBandwidthGBs)),
    int8GMACs: spread(ceilings.map((each) => each.int8GMACs)),
    floatGMACs: spread(ceilings.map((each) => each.floatGMACs)),
    byIsa: peaks,
    threads: info.units * info.threadsPerUnit,
    bufferBytes,
  };
}

function machineOf({ units, threadsPerUnit, tpDegree, gpu, isa, kvDtype }: PlanReport) {
  return { units, threadsPerUnit, tpDegree, gpu, isa, kvDtype };
}

/** Median of each repetition's share of the mean of the ceilings around it; 0 where there is no ceiling. */
function shareOf(reached: readonly number[], ceilings: readonly number[]): number {
  const shares = reached.map((value, index) => {
    const around = ((ceilings[index] ?? 0) + (ceilings[index + 1] ?? 0)) / 2;
    return around > 0 ? value / around : 0;
  });
  return percentile(shares, 0.5);
}

export function spread(values: readonly number[]): Spread {
  return { median: percentile(values, 0.5), min: Math.min(...values), max: Math.max(...values) };
}

/** The table for people; no line is longer than 80 columns. */
export function benchLines(report: BenchReport): string[] {
  const { machine, workload, ceilings, shares, reached, memory } = report;
  const peak = shares.prefillPeakKind === 'int8' ? ceilings.int8GMACs : ceilings.floatGMACs;
  const vnni = shares.prefillVnni === undefined ? '' : `, ${formatShare(shares.prefillVnni)} of VNNI`;
  return [
    row('model', report.model),
    row(
      'machine',
      `${machine.units} x ${machine.threadsPerUnit} threads, TP ${machine.tpDegree}, GPU ${machine.gpu}, ${machine.isa}, KV ${machine.kvDtype}`,
    ),
    row(
      'request',
      `${report.promptTokens} + ${report.genTokens} tokens, batch ${report.batch}, ${report.repetitions} repetitions`,
    ),
    '',
    `${''.padEnd(24)}${['median', 'min', 'max'].map((name) => name.padStart(10)).join('')}`,
    figures('prefill, tokens/s', report.prefillTokensPerSecond),
    figures('decode, tokens/s', report.decodeTokensPerSecond),
    figures('first token, ms', report.timeToFirstTokenMs),
    figures(
      'decode reads, GB/s',
      reached.decodeBandwidthGBs,
      `${formatShare(shares.decodeBandwidth)} of ceiling`,
    ),
    figures('  ceiling', ceilings.readBandwidthGBs),
    figures('prefill, GMAC/s', reached.prefillGMACs, `${formatShare(shares.prefillPeak)} of ceiling`),
    figures(`  ceiling (${machine.isa} ${shares.prefillPeakKind})`, peak, vnni.slice(2)),
    '',
    row(
      'per step',
      `${formatBytes(workload.weightBytesPerStep)} of weights and ${formatBytes(workload.kvBytesPerStep)} of KV cache read`,
    ),
    row('', `orchestration ${formatShare(report.orchestrationShare)} of a decode step`),
    row(
      'memory',
      `peak ${formatBytes(memory.peakBytes)}, ${memory.ratio.toFixed(2)} x the ${formatBytes(memory.heldBytes)} held`,
    ),
    row('load', formatMs(report.loadMs)),
    '',
    ...stageRows(report.stages, report.genTokens - 1),
  ];
}

/** Time by op: share of each phase, and what one decode step spends on it. */
function stageRows({ prefill, decode }: BenchReport['stages'], decodeSteps: number): string[] {
  const whole = { prefill: sum(Object.values(prefill)), decode: sum(Object.values(decode)) };
  const share = (ms: number, of: number) => formatShare(of > 0 ? ms / of : 0).padStart(10);
  const names = Object.keys(decode) as (keyof StageTimes)[];
  return [
    `${'time by op'.padEnd(24)}${['prefill', 'decode', 'ms a step'].map((name) => name.padStart(10)).join('')}`,
    ...names.map((name) => {
      const label = `  ${name.replace(/Ms$/, '')}`.padEnd(24);
      const stepMs = (decode[name] / decodeSteps).toFixed(3).padStart(10);
      return `${label}${share(prefill[name], whole.prefill)}${share(decode[name], whole.decode)}${stepMs}`;
    }),
  ];
}

function figures(label: string, { median, min, max }: Spread, note = ''): string {
  const cells = [median, min, max].map((value) => figure(value).padStart(10)).join('');
  return `${label.padEnd(24)}${cells}  ${note}`.trimEnd();
}

function figure(value: number): string {
  return value >= 999.5 ? formatCount(value) : value.toFixed(value >= 99.95 ? 0 : 1);
}

function row(label: string, text: string): string {
  return `${label.padEnd(9)} ${text}`.trimEnd();
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
