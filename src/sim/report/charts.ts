/**
 * The charts of a report, from cells: speed-ups with the oracle behind them, time breakdown, ablation, sweeps, edge
 * boxes. Used by html.ts; what a suite did not run gives no chart.
 */
import type { Cell } from '../point.js';
import { barChart, stackedBars } from './bar-chart.js';
import { lineChart, type Marker } from './line-chart.js';
import { LOOKS, type Picture } from './svg.js';

export type Section = { heading: string; text: string; pictures: Picture[] };

const BANDWIDTH_LOOKS = [LOOKS.third, LOOKS.second, LOOKS.first] as const;

/** All charts that the cells give. */
export function sections(cells: readonly Cell[]): Section[] {
  const of = (suite: string) => cells.filter((cell) => cell.suite === suite);
  return [
    ...speedups(of('paper')),
    ...breakdowns(of('paper')),
    ...ablation(of('ablation')),
    ...sweeps(of('sweep')),
    ...edge(of('edge')),
  ];
}

function speedups(cells: readonly Cell[]): Section[] {
  const own = cells.filter(({ policy }) => policy === 'ours');
  if (own.length === 0) return [];
  const bandwidths = distinct(own.map(({ unitBandwidthGBs }) => unitBandwidthGBs));
  const most = Math.max(...own.map((cell) => oracleSpeedup(cell) ?? cell.speedupMost));
  const pictures = distinct(own.map(({ model }) => model)).map((model) => {
    const ofModel = own.filter((cell) => cell.model === model);
    return barChart({
      title: model,
      valueAxis: 'speed-up over MoNDE (times)',
      groupAxis: 'NDP units',
      series: bandwidths.map((value, i) => ({
        name: `${value} GB/s a unit`,
        look: BANDWIDTH_LOOKS[i] ?? LOOKS.first,
      })),
      behind: 'oracle',
      mark: { value: 1, name: 'MoNDE' },
      most,
      width: 520,
      groups: distinct(ofModel.map(({ units }) => units)).map((units) => ({
        name: `${units}`,
        bars: ofModel
          .filter((cell) => cell.units === units)
          .map((cell) => ({
            value: cell.speedupOverMonde,
            low: cell.speedupLeast,
            high: cell.speedupMost,
            behind: oracleSpeedup(cell),
            title: `${cell.units} units, ${cell.unitBandwidthGBs} GB/s: ${cell.speedupOverMonde.toFixed(2)} times`,
          })),
      })),
    });
  });
  const text =
    'End-to-end time of the stronger reading of MoNDE in each cell over ours; bars are means over the routing ' +
    'profiles, whiskers reach from the least to the most. The number is ours; the open bar behind is what the oracle reaches.';
  return [{ heading: 'Speed-up over MoNDE', text, pictures }];
}

/** The oracle's mean speed-up, as far as the means tell it. */
function oracleSpeedup({ shareOfOracle, speedupOverMonde }: Cell): number | undefined {
  return shareOfOracle > 0 ? speedupOverMonde / shareOfOracle : undefined;
}

function breakdowns(cells: readonly Cell[]): Section[] {
  const pictures = [25.6, 102.4].flatMap((bandwidth) => {
    const shown = cells.filter(
      (cell) =>
        cell.model === 'qwen3-30b-a3b' &&
        cell.units === 4 &&
        cell.unitBandwidthGBs === bandwidth &&
        ['monde', 'monde-split', 'ours', 'oracle'].includes(cell.policy),
    );
    if (shown.length === 0) return [];
    return [
      stackedBars({
        title: `qwen3-30b-a3b, 4 units of ${bandwidth} GB/s: where the time of a run goes`,
        valueAxis: 'time (s)',
        series: [
          { name: 'dense work on the GPU', look: LOOKS.first },
          { name: 'experts, NDP units last', look: LOOKS.third },
          { name: 'experts, GPU last', look: LOOKS.second },
          { name: 'experts, waiting for the link', look: LOOKS.fifth },
          { name: 'planning and latencies', look: LOOKS.fourth },
        ],
        rows: shown.map(({ title, breakdown, totalMs }) => ({
          name: title,
          values: [
            breakdown.gpuDenseMs,
            breakdown.unitsLastMs,
            breakdown.gpuLastMs,
            breakdown.linkLastMs,
            breakdown.overheadMs,
          ].map((ms) => ms / 1e3),
          note: `${(totalMs / 1e3).toFixed(1)} s`,
        })),
        width: 1060,
      }),
      busyTimes(shown, bandwidth),
    ];
  });
  const text =
    'Phases follow each other and add up to the run; devices work side by side, so busy times overlap.';
  return pictures.length === 0 ? [] : [{ heading: 'Where the time goes', text, pictures }];
}

function busyTimes(shown: readonly Cell[], bandwidth: number): Picture {
  return barChart({
    title: `Busy share of each device, 4 units of ${bandwidth} GB/s`,
    valueAxis: 'share of the run (%)',
    groupAxis: 'system',
    most: 100,
    width: 1060,
    series: [
      { name: 'GPU, dense work', look: LOOKS.first },
      { name: 'GPU, experts', look: LOOKS.third },
      { name: 'NDP unit (mean)', look: LOOKS.second },
      { name: 'link', look: LOOKS.fourth },
    ],
    groups: shown.map(({ title, breakdown, totalMs }) => ({
      name: title,
      bars: [breakdown.gpuDenseMs, breakdown.gpuExpertsMs, breakdown.unitMs, breakdown.transferMs].map(
        (ms) => ({
          value: (100 * ms) / totalMs,
          title: `${((100 * ms) / totalMs).toFixed(0)}%`,
        }),
      ),
    })),
  });
}

function ablation(cells: readonly Cell[]): Section[] {
  if (cells.length === 0) return [];
  const steps = ['monde-split', 'monde-cached', 'tp', 'tp-balanced', 'tp-prefill', 'ours', 'oracle'];
  const looks = [LOOKS.fifth, LOOKS.sixth, LOOKS.third, LOOKS.second, LOOKS.fourth, LOOKS.first, LOOKS.quiet];
  const titles = new Map(cells.map(({ policy, title }) => [policy, title]));
  const pictures = distinct(cells.map(({ model }) => model)).map((model) => {
    const ofModel = cells.filter((cell) => cell.model === model);
    const boxes = distinct(ofModel.map(({ units, unitBandwidthGBs }) => `${units} x ${unitBandwidthGBs}`));
    return barChart({
      title: model,
      valueAxis: 'speed-up over MoNDE (times)',
      groupAxis: 'units x bandwidth of each (GB/s)',
      series: steps.map((step, i) => ({ name: titles.get(step) ?? step, look: looks[i] ?? LOOKS.first })),
      mark: { value: 1, name: 'MoNDE' },
      width: 1060,
      groups: boxes.map((box) => ({
        name: box,
        bars: steps.map((step) => {
          const cell = ofModel.find(
            ({ policy, units, unitBandwidthGBs }) =>
              policy === step && `${units} x ${unitBandwidthGBs}` === box,
          );
          return { value: cell?.speedupOverMonde ?? 0, title: `${titles.get(step) ?? step}, ${box}` };
        }),
      })),
    });
  });
  return [{ heading: 'Ablation', text: 'Each step keeps what stands before it.', pictures }];
}

const SWEPT = ['monde', 'monde-split', 'ours', 'oracle'] as const;
const SWEPT_LOOKS = [LOOKS.quiet, LOOKS.fifth, LOOKS.first, LOOKS.fourth] as const;
const MARKERS: readonly Marker[] = ['diamond', 'square', 'circle', 'triangle'];

function sweeps(cells: readonly Cell[]): Section[] {
  if (cells.length === 0) return [];
  const titles = new Map(cells.map(({ policy, title }) => [policy, title]));
  const knobs = distinct(cells.map(({ variant }) => knobOf(variant)));
  const pictures = knobs.map((knob) => {
    const own = cells.filter(({ variant }) => knobOf(variant) === knob);
    const variants = distinct(own.map(({ variant }) => variant));
    const unit = /[\d.]+ (\S+)$/.exec(variants[0] ?? '')?.[1];
    return lineChart({
      title: `Over ${knob}`,
      valueAxis: 'time per token (ms)',
      knobAxis: unit === undefined ? knob : `${knob} (${unit})`,
      knobs: variants.map((variant) => /[\d.]+|online/.exec(variant)?.[0] ?? variant),
      width: 520,
      series: SWEPT.map((policy, i) => ({
        name: titles.get(policy) ?? policy,
        look: SWEPT_LOOKS[i] ?? LOOKS.first,
        marker: MARKERS[i] ?? 'circle',
        values: variants.map(
          (variant) => own.find((cell) => cell.variant === variant && cell.policy === policy)?.tpotMs,
        ),
      })).filter(({ values }, i) => !SWEPT[i]?.startsWith('monde') || isTouched(values)),
    });
  });
  const text =
    'qwen3-30b-a3b on 4 units of 102.4 GB/s (recall: of 51.2 GB/s; prefetch width: 2 units of 25.6 GB/s), one knob at a time; ' +
    'the other values are the defaults. The oracle knows one request only, so that it has no larger batches. ' +
    'Readings of MoNDE that a knob does not touch are left out of its picture.';
  return [{ heading: 'Sweeps', text, pictures }];
}

/** False where all values are equal but for routing that differs a little. */
function isTouched(values: readonly (number | undefined)[]): boolean {
  const known = values.filter((value) => value !== undefined);
  return Math.max(...known) > 1.01 * Math.min(...known);
}

/** "vram 8 GB" is a value of "vram", "prefetch width online" of "prefetch width". */
function knobOf(variant: string): string {
  return variant.replace(/ ([\d.]+|online)( \S+)?$/, '');
}

function edge(cells: readonly Cell[]): Section[] {
  if (cells.length === 0) return [];
  const policies = ['monde', 'monde-split', 'ours', 'oracle'];
  const looks = [LOOKS.fifth, LOOKS.third, LOOKS.first, LOOKS.quiet];
  const titles = new Map(cells.map(({ policy, title }) => [policy, title]));
  const pictures = distinct(cells.map(({ model }) => model)).map((model) =>
    barChart({
      title: model,
      valueAxis: 'tokens per second',
      groupAxis: 'GPU, with 4 units of 102.4 GB/s',
      series: policies.map((policy, i) => ({
        name: titles.get(policy) ?? policy,
        look: looks[i] ?? LOOKS.first,
      })),
      width: 520,
      groups: distinct(cells.map(({ gpu }) => gpu)).map((gpu) => ({
        name: gpu,
        bars: policies.map((policy) => {
          const cell = cells.find((one) => one.model === model && one.gpu === gpu && one.policy === policy);
          return { value: cell ? 1e3 / cell.tpotMs : 0, title: `${policy} on ${gpu}` };
        }),
      })),
    }),
  );
  return [{ heading: 'Other GPUs', text: 'Decode rate of one request.', pictures }];
}

function distinct<T>(values: readonly T[]): T[] {
  return [...new Set(values)];
}
