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
  const held = `${plan.expertSlots} of ${plan.experts} experts (${formatShare(plan.expertSlots / plan.experts)})`;
  return [
    row('model', plan.model),
    row('box', `${plan.gpu}, ${plan.units} units of ${plan.unitBandwidthGBs} GB/s`),
    ...plan.memory.map(({ place, kind, sizeBytes, capacityBytes }, index) =>
      row(
        index === 0 ? 'memory' : '',
        `${place.padEnd(16)} ${kind.padEnd(28)} ${formatBytes(sizeBytes).padStart(9)} of ${formatBytes(capacityBytes)}` +
          `${sizeBytes > capacityBytes ? '  DOES NOT FIT' : ''}`,
      ),
    ),
    row('GPU holds', held),
    row('TTFT', formatMs(plan.ttftMs)),
    row('TPOT', `${formatMs(plan.tpotMs)} (${formatRate(1e3 / plan.tpotMs)})`),
    row(
      'bound',
      `${formatMs(plan.boundMs)} of ${formatMs(plan.totalMs)} in all: ${formatShare(plan.shareOfBound)} of it is reached`,
    ),
    row('in the way', plan.bottleneck),
    ...plan.changes.map(({ change, tpotMs, speedup }, index) =>
      row(
        index === 0 ? 'change' : '',
        `${change.padEnd(26)} ${speedup.toFixed(2)} times as fast, TPOT ${formatMs(tpotMs)}`,
      ),
    ),
    row('', 'simulated on synthetic routing; no such box was measured'),
  ];
}

function row(label: string, text: string): string {
  return `${label.padEnd(11)} ${text}`.trimEnd();
}
