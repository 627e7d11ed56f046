/**
 * `nearmoe convert SOURCE OUT.gguf`: a Hub checkpoint as one GGUF file, in another format where asked for. Called by
 * main.ts. Shows progress; Ctrl-C ends it and leaves no file behind.
 */
import { existsSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import type { Command } from 'commander';
import { AbortedError, OptionError } from '../errors.js';
import { type ConvertReport, convertSteps } from '../model/gguf/convert.js';
import { CONVERT_FORMATS, type ConvertFormat } from '../model/gguf/convert-weights.js';
import { openModel } from '../model/open-model.js';
import type { CliContext } from './context.js';
import { formatBytes, formatMs } from './format.js';
import { ProgressLine } from './progress.js';

export type ConvertFlags = { type: string; force?: boolean; json?: boolean };

/** Declares the command and its options. */
export function addConvertCommand(
  program: Command,
  run: (source: string, out: string, flags: ConvertFlags) => Promise<void>,
): void {
  program
    .command('convert <source> <out>')
    .description('write a Hub checkpoint as a GGUF file')
    .option('--type <format>', `of the matrices: ${CONVERT_FORMATS.join(', ')}`, 'keep')
    .option('--force', 'replace the file where it exists')
    .option('--json', 'one JSON object on stdout')
    .action(run);
}

/** Runs the command; resolves to the exit status. Rejects with AbortedError on Ctrl-C. */
export async function convertCommand(
  source: string,
  out: string,
  flags: ConvertFlags,
  context: CliContext,
): Promise<number> {
  const dtype = CONVERT_FORMATS.find((format) => format === flags.type);
  if (dtype === undefined) throw new OptionError('type', `one of ${CONVERT_FORMATS.join(', ')}`, flags.type);
  if (!flags.force && existsSync(out)) {
    throw new OptionError('out', 'a file that does not exist yet', out, {
      hint: 'Name another file, or replace this one with --force.',
    });
  }
  const started = performance.now();
  const { report, totalBytes } = await convert(source, out, dtype, context);
  const timeMs = performance.now() - started;
  const text = flags.json
    ? JSON.stringify({ out, sizeBytes: totalBytes, timeMs, ...report })
    : summary(out, totalBytes, timeMs, report);
  context.stdout.write(`${text}\n`);
  return 0;
}

async function convert(source: string, out: string, dtype: ConvertFormat, context: CliContext) {
  const progress = new ProgressLine(context.stderr);
  let interrupted = false;
  const release = context.onInterrupt(() => {
    interrupted = true;
  });
  const steps = convertSteps(openModel(source), out, { dtype });
  try {
    for (let totalBytes = 0; ; ) {
      const step = steps.next();
      if (step.done) return { report: step.value, totalBytes };
      totalBytes = step.value.totalBytes;
      progress.update('convert', step.value.doneBytes, totalBytes, formatBytes(totalBytes));
      // Signals are heard between pieces only.
      await setImmediate();
      if (interrupted) throw new AbortedError('Converting');
    }
  } finally {
    steps.return({ bytesByDtype: {}, otherFormat: [] });
    release();
    progress.clear();
  }
}

function summary(out: string, sizeBytes: number, timeMs: number, report: ConvertReport): string {
  const formats = Object.entries(report.bytesByDtype).map(([name, bytes]) => `${name} ${formatBytes(bytes)}`);
  const others = report.otherFormat.length;
  const note = others === 0 ? [] : [`${others} tensors in another format than asked for (--json names them)`];
  const head = `${out}: ${formatBytes(sizeBytes)} in ${formatMs(timeMs)} (${formats.join(', ')})`;
  return [head, ...note].join('\n');
}
