/**
 * `nearmoe plan`: what a box would do with a model, before anything is bought or downloaded. Called by main.ts; the
 * figures are the simulator's.
 */
import { existsSync } from 'node:fs';
import { OptionError } from '../errors.js';
import { openModel } from '../model/open-model.js';
import { type BoxPlan, planBox } from '../sim/buy.js';
import { basePoint } from '../sim/suites.js';
import { checkpointShape } from './checkpoint-shape.js';
import type { CliContext } from './context.js';
import { formatBytes, formatMs, formatRate, formatShare } from './format.js';

export type PlanFlags = {
  model?: string;
  gpu?: string;
  units?: number;
  unitBandwidth?: number;
  promptTokens?: number;
  tokens?: number;
  batch?: number;
  json?: boolean;
};

/** Runs the command; resolves to the exit status: 1 where the model does not fit. Throws OptionError. */
export function planCommand(flags: PlanFlags, context: CliContext): number {
  const point = pointOf(flags);
  const plan = planBox(point, existsSync(point.model) ? checkpointShape(openModel(point.model)) : undefined);
  if (flags.json) context.stdout.write(`${JSON.stringify(plan)}\n`);
  else context.stdout.write(`${planLines(plan).join('\n')}\n`);
  return plan.fits ? 0 : 1;
}

function pointOf(flags: PlanFlags) {
  const base = basePoint('plan', {
    promptTokens: count('prompt-tokens', flags.promptTokens ?? 512),
    answerTokens: count('tokens', flags.tokens ?? 128),
  });
  const bandwidth = flags.unitBandwidth ?? base.unitBandwidthGBs;
  if (!(bandwidth > 0 && Number.isFinite(bandwidth))) {
    throw new OptionError('unit-bandwidth', 'a number > 0', bandwidth);
  }
  return {
    ...base,
    model: flags.model ?? base.model,
    gpu: flags.gpu ?? base.gpu,
    units: count('units', flags.units ?? base.units),
    unitBandwidthGBs: bandwidth,
    batch: count('batch', flags.batch ?? 1),
    workloads: base.workloads.slice(0, 3),
  };
}

function count(name: string, value: number): number {
  if (!Number.isSafeInteger(value) || value < 1) throw new OptionError(name, 'an integer >= 1', value);
  return value;
}

function planLines(plan: BoxPlan): string[] {
  return [
    row('model', plan.model),
    row('box', `${plan.gpu}, ${plan.units} units of ${plan.unitBandwidthGBs} GB/s`),
    ...memoryRows(plan),
    row(
      'GPU holds',
      `${plan.expertSlots} of ${plan.experts} experts (${formatShare(plan.expertSlots / plan.experts)})`,
    ),
    timeRow('TTFT', plan.ttftMs, plan.ttftBoundMs),
    timeRow('TPOT', plan.tpotMs, plan.tpotBoundMs, ` (${formatRate(1e3 / plan.tpotMs)})`),
    row('in all', `${formatMs(plan.totalMs)}, least possible ${formatMs(plan.boundMs)}`),
    row('in the way', `${plan.bottleneck} of the time`),
    ...adviceRows(plan),
    row('', 'simulated on synthetic routing; no such box was measured'),
  ];
}

function memoryRows({ memory }: BoxPlan): string[] {
  return memory.map(({ place, kind, sizeBytes, capacityBytes }, index) => {
    const sizes = `${formatBytes(sizeBytes).padStart(7)} of ${formatBytes(capacityBytes)}`;
    const fault = sizeBytes > capacityBytes ? ' TOO MUCH' : '';
    return row(index === 0 ? 'memory' : '', `${place.padEnd(15)}  ${kind.padEnd(23)} ${sizes}${fault}`);
  });
}

function timeRow(label: string, timeMs: number, boundMs: number, note = ''): string {
  const bound = `least possible ${formatMs(boundMs)}, ${formatShare(boundMs / timeMs)} of it`;
  return row(label, `${`${formatMs(timeMs)}${note}`.padEnd(27)}${bound}`);
}

/** Faster by less than this is no reason to buy. */
const WORTH = 1.02;

/** What makes the model fit comes first, then what makes it faster, the most helpful change first. */
function adviceRows({ fits, units, unitsToFit, changes }: BoxPlan): string[] {
  const needed = fits ? [] : [`${unitsToFit} units to hold all experts, in place of ${units}`];
  const useful = changes
    .filter(({ speedup }) => speedup >= WORTH)
    .map(({ change, tpotMs, speedup }) => {
      return `${change.padEnd(26)} ${speedup.toFixed(2)} times as fast, TPOT ${formatMs(tpotMs)}`;
    });
  const advice = [...needed, ...useful];
  if (advice.length === 0) advice.push('nothing here is worth a change: none gains 2%');
  return advice.map((text, index) => row(index === 0 ? 'change' : '', text));
}

function row(label: string, text: string): string {
  return `${label.padEnd(11)} ${text}`.trimEnd();
}
