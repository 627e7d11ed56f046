/**
 * `nearmoe inspect [model]`: what a checkpoint holds and weighs, without reading its weights. With --plan it is loaded,
 * and what was placed where, and why, is told as well. Called by main.ts.
 */

import { type ModelFacts, modelFacts } from '../engine/model-facts.js';
import type { PlanReport } from '../llm.js';
import { openModel } from '../model/open-model.js';
import type { CliContext } from './context.js';
import { type LoadFlags, loadOptions } from './flags.js';
import { formatBytes, formatCount, formatShare, wrap } from './format.js';
import { withModel } from './with-model.js';

export type InspectFlags = LoadFlags & { json?: boolean; plan?: boolean };

/** Runs the command; resolves to the exit status. */
export async function inspectCommand(
  model: string | undefined,
  flags: InspectFlags,
  context: CliContext,
): Promise<number> {
  const options = loadOptions({ ...flags, model: model ?? flags.model });
  const opened = openModel(options.model);
  const facts = modelFacts(opened);
  const extras = {
    path: opened.path,
    format: opened.source,
    tokenizerSize: opened.tokenizer.vocabSize,
    chatTemplates: Object.keys(opened.chatTemplate.texts),
  };
  const plan = flags.plan ? await withModel(context, options, (loaded) => loaded.plan()) : undefined;
  if (flags.json) {
    context.stdout.write(`${JSON.stringify({ ...extras, ...facts, plan })}\n`);
  } else {
    const lines = [...headLines(facts, extras), ...weightLines(facts), ...(plan ? planLines(plan) : [])];
    context.stdout.write(`${lines.join('\n')}\n`);
  }
  return 0;
}

type Extras = { path: string; format: string; tokenizerSize: number; chatTemplates: string[] };

function headLines(facts: ModelFacts, { path, format, tokenizerSize, chatTemplates }: Extras): string[] {
  const { total, active } = facts.parameters;
  return [
    row('model', `${path} (${format})`),
    row('family', facts.architecture),
    row(
      'layers',
      `${facts.layers}, ${facts.moeLayers} of them with experts, hidden size ${facts.hiddenSize}`,
    ),
    row(
      'experts',
      `${facts.numExperts} a layer, ${facts.numExpertsPerTok} per token, intermediate size ${facts.moeIntermediateSize}`,
    ),
    row('context', `${formatCount(facts.maxPositions)} tokens`),
    row('vocabulary', `${formatCount(facts.vocabSize)} (tokenizer ${formatCount(tokenizerSize)})`),
    row('chat', chatTemplates.length > 0 ? `template ${chatTemplates.join(', ')}` : 'no template'),
    row(
      'parameters',
      `${formatCount(total)}, active per token ${formatCount(active)} (${formatShare(active / total)})`,
    ),
  ];
}

function weightLines(facts: ModelFacts): string[] {
  const { total, byKind, byDtype } = facts.sizeBytes;
  const dtypes = Object.entries(byDtype).map(([dtype, sizeBytes]) => `${dtype} ${formatBytes(sizeBytes)}`);
  const kinds = Object.entries(byKind).filter(([, sizeBytes]) => sizeBytes > 0);
  return [
    row('weights', `${formatBytes(total)} (${dtypes.join(', ')})`),
    ...kinds.map(([kind, sizeBytes]) =>
      row(
        '',
        `${kind.padEnd(15)}${formatBytes(sizeBytes).padStart(9)}  ${formatShare(sizeBytes / total).padStart(6)}`,
      ),
    ),
    row('one expert', formatBytes(facts.expertBytes)),
    row(
      'per token',
      `${formatBytes(facts.readBytesPerToken)} of weights read, ${formatBytes(facts.kvBytesPerToken)} of KV cache (16-bit)`,
    ),
    ...(facts.stateBytesPerSequence > 0
      ? [
          row(
            'a sequence',
            `${formatBytes(facts.stateBytesPerSequence)} of states (32-bit), whatever its length`,
          ),
        ]
      : []),
  ];
}

function planLines(plan: PlanReport): string[] {
  const gpu = plan.gpu === 'off' ? 'no GPU lane' : `GPU lane ${plan.gpu}, ${plan.expertSlots} expert slots`;
  return [
    row('plan', `${plan.units} units x ${plan.threadsPerUnit} threads, TP ${plan.tpDegree}, ${gpu}`),
    ...plan.memory.map(({ place, kind, sizeBytes }) =>
      row('', `${place.padEnd(10)} ${kind.padEnd(8)} ${formatBytes(sizeBytes).padStart(9)}`),
    ),
    ...plan.reasons.flatMap((reason) =>
      wrap(reason, 66).map((line, index) => row(index === 0 ? 'why' : '', line)),
    ),
  ];
}

function row(label: string, text: string): string {
  return `${label.padEnd(11)} ${text}`;
}
