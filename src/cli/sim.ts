/**
 * `nearmoe sim`: runs the production engine over simulated hardware, one point or a whole suite, and tells times,
 * speed-ups over MoNDE and how far from the best possible they are. Called by main.ts; simulates nothing itself.
 */
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { OptionError } from '../errors.js';
import { sizeBytes } from '../options/size-bytes.js';
import type { Cell, Point } from '../sim/point.js';
import { writeReport } from '../sim/report/write-report.js';
import { PointRunner } from '../sim/run-point.js';
import { runPoints } from '../sim/run-points.js';
import { basePoint, suitePoints } from '../sim/suites.js';
import { SYSTEMS } from '../sim/systems.js';
import { chromeTrace } from '../trace/chrome.js';
import type { CliContext } from './context.js';
import { formatMs } from './format.js';
import { note } from './report.js';

export type SimFlags = {
  suite?: string;
  model?: string;
  gpu?: string;
  units?: number;
  unitBandwidth?: number;
  link?: number;
  vram?: string;
  policy?: string[];
  promptTokens?: number;
  tokens?: number;
  batch?: number;
  profile?: string[];
  correlation?: number;
  recall?: number;
  routing?: string;
  seed?: number;
  threads?: number;
  out?: string;
  trace?: string;
  json?: boolean;
};

/** Runs the command; resolves to the exit status. Throws OptionError, ModelFormatError. */
export async function simCommand(flags: SimFlags, context: CliContext): Promise<number> {
  const points = flags.suite === undefined ? [pointOf(flags)] : suitesOf(flags.suite, flags);
  const startMs = performance.now();
  const cells = await runPoints(points, {
    threads: flags.threads ?? os.availableParallelism(),
    onProgress: (done, total) => {
      if (context.stderr.isTTY) context.stderr.write(`\r${done} of ${total} points`);
    },
  });
  if (context.stderr.isTTY) context.stderr.write('\r');
  note(context, `${points.length} points, ${cells.length} cells in ${formatMs(performance.now() - startMs)}`);
  if (flags.out !== undefined) {
    for (const file of writeReport(flags.out, cells)) note(context, `written: ${file}`);
  }
  if (flags.trace !== undefined) writeTrace(flags.trace, points[0], flags, context);
  if (flags.json) context.stdout.write(`${JSON.stringify({ cells })}\n`);
  else context.stdout.write(`${cellLines(cells).join('\n')}\n`);
  return 0;
}

/** One suite, or several by commas. */
function suitesOf(names: string, flags: SimFlags): Point[] {
  return names.split(',').flatMap((name) => suitePoints(name, loadOf(flags)));
}

function loadOf({ seed, promptTokens, tokens }: SimFlags) {
  return {
    ...(seed === undefined ? {} : { seed: integerFrom('seed', seed, 0) }),
    ...(promptTokens === undefined ? {} : { promptTokens: integerFrom('prompt-tokens', promptTokens, 1) }),
    ...(tokens === undefined ? {} : { answerTokens: integerFrom('tokens', tokens, 1) }),
  };
}

/** The one point that the flags describe; without flags the paper's with four units. */
function pointOf(flags: SimFlags): Point {
  const base = basePoint('single', loadOf(flags));
  const seed = flags.seed ?? 1;
  const memory = flags.vram === undefined ? undefined : sizeBytes(flags.vram);
  if (flags.vram !== undefined && memory === undefined) {
    throw new OptionError('vram', 'a size such as "16GB"', flags.vram);
  }
  return {
    ...base,
    model: flags.model ?? base.model,
    gpu: flags.gpu ?? base.gpu,
    units: integerFrom('units', flags.units ?? base.units, 1),
    unitBandwidthGBs: positive('unit-bandwidth', flags.unitBandwidth ?? base.unitBandwidthGBs),
    ...(flags.link === undefined ? {} : { hostToDeviceGBs: positive('link', flags.link) }),
    ...(memory === undefined ? {} : { memoryGB: memory / 1e9 }),
    batch: integerFrom('batch', flags.batch ?? 1, 1),
    correlation: flags.correlation ?? base.correlation,
    recall: share('recall', flags.recall ?? base.recall),
    policies: flags.policy ?? systemsFor(flags),
    workloads: flags.profile
      ? flags.profile.map((profile, index) => ({ profile, seed: seed + index }))
      : flags.routing
        ? [{ profile: 'recorded', seed }]
        : base.workloads,
    ...(flags.routing === undefined ? {} : { routingFile: flags.routing }),
  };
}

/** The oracle knows one request's future only. */
function systemsFor({ batch = 1 }: SimFlags): string[] {
  return SYSTEMS.filter((system) => batch === 1 || !system.isOracle).map(({ id }) => id);
}

function writeTrace(file: string, point: Point | undefined, flags: SimFlags, context: CliContext): void {
  if (point === undefined) return;
  const policy = flags.policy?.at(-1) ?? 'ours';
  const { requests } = new PointRunner().trace(point, policy);
  const about = { model: point.model, policy, units: point.units, unitBandwidthGBs: point.unitBandwidthGBs };
  const spans = requests[0]?.trace ?? [];
  writeFileSync(file, JSON.stringify(chromeTrace(spans, about)));
  note(context, `timeline of ${spans.length} spans (${policy}) in ${file}`);
}

const COLUMNS = ['model', 'units', 'GB/s', 'system', 'TTFT', 'TPOT', 'total', 'x MoNDE', 'oracle', 'bound'];

function cellLines(cells: readonly Cell[]): string[] {
  const percent = (value: number) => (value > 0 ? `${(value * 100).toFixed(0)}%` : '-');
  const rows = cells.map((cell) => [
    cell.variant === '' ? cell.model : `${cell.model} (${cell.variant})`,
    `${cell.units}`,
    `${cell.unitBandwidthGBs}`,
    cell.title,
    formatMs(cell.ttftMs),
    formatMs(cell.tpotMs),
    formatMs(cell.totalMs),
    cell.speedupOverMonde.toFixed(2),
    percent(cell.shareOfOracle),
    percent(cell.shareOfBound),
  ]);
  const widths = COLUMNS.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    row
      .map((text, i) => (i === 0 || i === 3 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0)))
      .join('  ');
  return [line(COLUMNS), ...rows.map(line)].map((text) => text.trimEnd());
}

function integerFrom(name: string, value: number, least: number): number {
  if (!Number.isSafeInteger(value) || value < least)
    throw new OptionError(name, `an integer >= ${least}`, value);
  return value;
}

function positive(name: string, value: number): number {
  if (!(value > 0 && Number.isFinite(value))) throw new OptionError(name, 'a number > 0', value);
  return value;
}

function share(name: string, value: number): number {
  if (!(value >= 0 && value <= 1)) throw new OptionError(name, 'a number from 0 to 1', value);
  return value;
}
