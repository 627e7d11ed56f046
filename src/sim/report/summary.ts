/**
 * What a report says in words and tables: the aims and how they were met, speed-ups per model and unit count, what is
 * in the way, and every cell. Shared by the Markdown and the HTML report; pure text from cells.
 */
import type { Cell } from '../point.js';

export type Table = { heading: string; columns: string[]; rows: string[][] };
export type Summary = { title: string; lines: string[]; tables: Table[] };

const AIMS = { speedup: 2.75, shareOfOracle: 0.85, least: 1 } as const;

export function summarise(cells: readonly Cell[]): Summary {
  const suites = [...new Set(cells.map(({ suite }) => suite))];
  return {
    title: `nearmoe on simulated hardware: ${suites.join(', ')}`,
    lines: [...settingLines(cells), ...aimLines(cells.filter(({ suite }) => suite === 'paper'))],
    tables: [...speedupTables(cells.filter(({ suite }) => suite === 'paper')), allCells(cells)],
  };
}

function settingLines(cells: readonly Cell[]): string[] {
  const [first] = cells;
  if (first === undefined) return ['No cells.'];
  return [
    'The production engine, scheduler, cache and prefetcher ran against devices in virtual time; hardware figures and ' +
      'their sources are in src/sim/hardware. No such box was measured.',
    `Load: ${first.promptTokens} tokens in, ${first.answerTokens} out, unless a row says otherwise. Routing: means over ` +
      `${first.workloads.length} profiles fitted to real models (${first.workloads.map(({ profile }) => profile).join(', ')}), ` +
      `prompt and answer correlated by ${first.correlation}, lookahead recall ${first.recall}.`,
    'Models: Wu et al. (arXiv 2601.03992) are only known to use Qwen3-30B-A3B; Mixtral-8x7B, DeepSeek-V2-Lite and ' +
      'Qwen1.5-MoE-A2.7B are our choice. Speed-ups are over the stronger of the two readings of MoNDE in each cell.',
  ];
}

function aimLines(cells: readonly Cell[]): string[] {
  const own = cells.filter(({ policy }) => policy === 'ours');
  if (own.length === 0) return [];
  const mean = meanOf(own.map((cell) => cell.speedupOverMonde));
  const share = meanOf(own.map((cell) => cell.shareOfOracle));
  const least = Math.min(...own.map((cell) => cell.speedupLeast));
  const verdict = (met: boolean) => (met ? 'met' : 'MISSED');
  return [
    `Mean speed-up over ${own.length} cells: ${mean.toFixed(2)} (aim ${AIMS.speedup}: ${verdict(mean >= AIMS.speedup)}). ` +
      'The paper claims 2.41 on average and up to 2.56 for its own setting; that is its claim, not ours.',
    `Share of the oracle's speed-up: ${percent(share)} on average (aim ${percent(AIMS.shareOfOracle)}: ` +
      `${verdict(share >= AIMS.shareOfOracle)}); least in a cell ${percent(Math.min(...own.map((cell) => cell.shareOfOracle)))}.`,
    `Least speed-up of any cell and profile: ${least.toFixed(2)} (aim ${AIMS.least.toFixed(1)}: ${verdict(least >= AIMS.least)}).`,
    `${own.filter((cell) => cell.speedupOverMonde < AIMS.speedup).length} cells stay below ${AIMS.speedup}, ` +
      `${own.filter((cell) => cell.shareOfOracle < AIMS.shareOfOracle).length} below ${percent(AIMS.shareOfOracle)} of the oracle; ` +
      'the column "in the way" names the largest part of their time.',
  ];
}

/** Per model: units down, bandwidths across. */
function speedupTables(cells: readonly Cell[]): Table[] {
  const own = cells.filter(({ policy }) => policy === 'ours');
  const bandwidths = [...new Set(own.map(({ unitBandwidthGBs }) => unitBandwidthGBs))];
  return [...new Set(own.map(({ model }) => model))].map((model) => ({
    heading: `Speed-up over MoNDE, ${model}`,
    columns: ['units', ...bandwidths.flatMap((value) => [`${value} GB/s`, 'of oracle', 'in the way'])],
    rows: [...new Set(own.map(({ units }) => units))].map((units) => [
      `${units}`,
      ...bandwidths.flatMap((bandwidth) => {
        const cell = own.find(
          (one) => one.model === model && one.units === units && one.unitBandwidthGBs === bandwidth,
        );
        if (cell === undefined) return ['-', '-', '-'];
        const spread = `${cell.speedupLeast.toFixed(2)}-${cell.speedupMost.toFixed(2)}`;
        return [
          `${cell.speedupOverMonde.toFixed(2)} (${spread})`,
          percent(cell.shareOfOracle),
          inTheWay(cell),
        ];
      }),
    ]),
  }));
}

/** The largest part of a run's time: dense work, latencies, or the side that finishes a layer's experts last. */
export function inTheWay({ breakdown, totalMs }: Cell): string {
  const parts = [
    { name: 'GPU dense', ms: breakdown.gpuDenseMs },
    { name: 'NDP units', ms: breakdown.unitsLastMs },
    { name: 'GPU experts', ms: breakdown.gpuLastMs },
    { name: 'link', ms: breakdown.linkLastMs },
    { name: 'latencies', ms: breakdown.overheadMs },
  ].sort((left, right) => right.ms - left.ms);
  const [largest] = parts;
  return largest === undefined ? '-' : `${largest.name} ${percent(largest.ms / totalMs)}`;
}

function allCells(cells: readonly Cell[]): Table {
  return {
    heading: 'All cells',
    columns: [
      'suite',
      'model',
      'GPU',
      'units',
      'GB/s',
      'system',
      'TTFT ms',
      'TPOT ms',
      'total s',
      'x MoNDE',
      'oracle',
      'bound',
    ],
    rows: cells.map((cell) => [
      cell.variant === '' ? cell.suite : `${cell.suite}: ${cell.variant}`,
      cell.model,
      cell.gpu,
      `${cell.units}`,
      `${cell.unitBandwidthGBs}`,
      cell.title,
      cell.ttftMs.toFixed(0),
      cell.tpotMs.toFixed(2),
      (cell.totalMs / 1e3).toFixed(2),
      cell.speedupOverMonde.toFixed(2),
      cell.shareOfOracle > 0 ? percent(cell.shareOfOracle) : '-',
      percent(cell.shareOfBound),
    ]),
  };
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
