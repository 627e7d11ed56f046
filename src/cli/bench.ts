/**
 * `nearmoe bench`: tokens per second of a model, beside what this machine could do in the same minute. Called by
 * main.ts. Loads the model, warms up, then alternates between ceilings and measured requests.
 */
import type { Command } from 'commander';
import { binding } from '../binding.js';
import { OptionError } from '../errors.js';
import type { Model } from '../llm.js';
import { openModel } from '../model/open-model.js';
import type { KvDtype, LoadOptions } from '../options.js';
import {
  type CeilingSettings,
  measureCeilings,
  multiplyPeaks,
  peakMemoryBytes,
  readBufferBytes,
} from './bench/machine.js';
import { benchLines, benchReport, type Measurements } from './bench/report.js';
import { freshPrompts, runProfile, runRepetition } from './bench/runs.js';
import { type RequestShape, workloadOf } from './bench/workload.js';
import type { CliContext } from './context.js';
import { addLoadFlags, type LoadFlags, loadOptions, numeric } from './flags.js';
import { withModel } from './with-model.js';

export type BenchFlags = LoadFlags & {
  synthetic?: string;
  quant?: string;
  promptTokens: number;
  genTokens: number;
  batch: number;
  repetitions: number;
  json?: boolean;
};

/** Declares the command and its options. */
export function addBenchCommand(program: Command, run: (flags: BenchFlags) => Promise<void>): void {
  const command = program
    .command('bench')
    .description("measure a model's speed beside what the machine can do");
  addLoadFlags(command)
    .option('--synthetic <shape>', 'made-up weights of a published shape, such as olmoe-1b-7b')
    .option('--quant <format>', 'format of the made-up weights (default: q4_0)')
    .optionsGroup('Measurement:')
    .option('--prompt-tokens <n>', 'tokens of each prompt', numeric('promptTokens'), 512)
    .option('--gen-tokens <n>', 'tokens generated behind each prompt', numeric('genTokens'), 128)
    .option('--batch <n>', 'sequences at a time', numeric('batch'), 1)
    .option('--repetitions <n>', 'measured requests', numeric('repetitions'), 3)
    .optionsGroup('Output:')
    .option('--json', 'one JSON object on stdout')
    .action(run);
}

/** Runs the command; resolves to the exit status. */
export async function benchCommand(flags: BenchFlags, context: CliContext): Promise<number> {
  const shape = requestShape(flags);
  const options = benchLoadOptions(flags, shape);
  const report = benchReport(await measure(options, shape, flags.repetitions, context));
  context.stdout.write(flags.json ? `${JSON.stringify(report)}\n` : `${benchLines(report).join('\n')}\n`);
  return 0;
}

function requestShape(flags: BenchFlags): RequestShape {
  const { promptTokens, genTokens, batch } = flags;
  const least = { promptTokens: 1, genTokens: 2, batch: 1, repetitions: 1 } as const;
  for (const [name, low] of Object.entries(least) as [keyof typeof least, number][]) {
    if (!Number.isSafeInteger(flags[name]) || flags[name] < low) {
      throw new OptionError(name, `an integer >= ${low}`, flags[name]);
    }
  }
  return { promptTokens, genTokens, batch };
}

function benchLoadOptions(flags: BenchFlags, { promptTokens, genTokens, batch }: RequestShape): LoadOptions {
  if (flags.synthetic !== undefined && flags.model !== undefined) {
    throw new OptionError('synthetic', 'absent where --model is given', flags.synthetic);
  }
  if (flags.synthetic === undefined && flags.quant !== undefined) {
    throw new OptionError('quant', 'given together with --synthetic', flags.quant, {
      hint: 'The weights of --model are measured in the format they are stored in.',
    });
  }
  const model =
    flags.synthetic === undefined ? flags.model : `synthetic:${flags.synthetic}:${flags.quant ?? 'q4_0'}`;
  const length = promptTokens + genTokens;
  return {
    maxContext: length,
    maxSequences: batch,
    ...loadOptions({ ...flags, model }),
    kvTokens: batch * Math.max(length, flags.maxContext ?? 0),
  };
}

async function measure(
  options: LoadOptions,
  shape: RequestShape,
  repetitions: number,
  context: CliContext,
): Promise<Measurements> {
  const opened = openModel(options.model, options.quantize);
  const { vocabSize } = opened.spec;
  return withModel(context, options, async (model, loadMs) => {
    const { info } = model;
    const prompts = freshPrompts(vocabSize);
    // Every buffer and page has been touched once; the ceilings' own buffer must not count as the model's memory.
    await runRepetition(model, { ...shape, genTokens: 2 }, prompts);
    const memory = { peakBytes: peakMemoryBytes(), heldBytes: heldBytes(model) };
    const settings: CeilingSettings = {
      threads: info.units * info.threadsPerUnit,
      pinThreads: options.pinThreads ?? true,
      bufferBytes: readBufferBytes(),
      isa: info.isa,
    };
    const ceilings = [measureCeilings(settings)];
    const runs = [];
    for (let run = 0; run < repetitions; run++) {
      runs.push(await runRepetition(model, shape, prompts));
      ceilings.push(measureCeilings(settings));
    }
    return {
      model: options.model,
      shape,
      info,
      workload: workloadOf(opened, shape, info.kvDtype as KvDtype),
      repetitions: runs,
      ceilings,
      peaks: peaksByIsa(settings),
      bufferBytes: settings.bufferBytes,
      stages: await runProfile(model, shape, prompts),
      memory,
      loadMs,
    };
  });
}

function heldBytes({ info }: Model): number {
  return info.memory.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

function peaksByIsa(settings: CeilingSettings): Measurements['peaks'] {
  const isas = binding()
    .cpuInfo()
    .runnableIsas.filter((isa) => isa !== 'scalar');
  return Object.fromEntries(isas.map((isa) => [isa, multiplyPeaks({ ...settings, isa })]));
}
