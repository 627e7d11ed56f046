/**
 * `nearmoe [prompt]`: loads a model, continues one prompt, tells what it cost. Text goes to stdout as it is generated;
 * with --json one object goes there at the end instead. Called by main.ts.
 */
import { readFileSync } from 'node:fs';
import { NearmoeError, OptionError } from '../errors.js';
import type { GenerateResult, Model } from '../llm.js';
import type { Prompt } from '../options.js';
import type { CliContext } from './context.js';
import { type GenerateFlags, generateOptions, type LoadFlags, loadOptions, parseInputIds } from './flags.js';
import { dim } from './format.js';
import { checkOutputFiles, writeOutputFiles } from './output-files.js';
import { note } from './report.js';
import { resultJson } from './result-json.js';
import { summaryLines } from './summary.js';
import { loadedLines, prefillProgress, runGeneration, withModel } from './with-model.js';

export type RunFlags = LoadFlags & GenerateFlags & { inputIds?: string; logitsOut?: string };

/** Runs the command; resolves to the exit status: 0, or 130 where Ctrl-C cut the text short. */
export async function runCommand(
  words: readonly string[],
  flags: RunFlags,
  context: CliContext,
): Promise<number> {
  const prompt = readPrompt(words, flags);
  checkOutputFiles(flags);
  return withModel(context, loadOptions(flags), async (model, loadMs) => {
    for (const line of loadedLines(model, loadMs, flags)) note(context, line);
    const result = await generate(model, prompt, flags, context);
    for (const line of writeOutputFiles(flags, result, model.info)) note(context, line);
    if (flags.json) context.stdout.write(`${JSON.stringify(resultJson(result))}\n`);
    for (const line of summaryLines(result, model.info)) note(context, line);
    return result.finishReason === 'cancelled' ? 130 : 0;
  });
}

async function generate(
  model: Model,
  prompt: Prompt,
  flags: RunFlags,
  context: CliContext,
): Promise<GenerateResult> {
  const progress = prefillProgress(context);
  const options = {
    ...generateOptions(flags),
    captureLogits: flags.logitsOut !== undefined,
    onProgress: progress.onProgress,
  };
  const generation = model.generate(prompt, options);
  let started = false;
  try {
    const result = await runGeneration(context, generation, (text) => {
      if (!started) {
        progress.clear();
        if (!flags.json && typeof prompt === 'string') echoPrompt(prompt, context);
        started = true;
      }
      if (!flags.json) context.stdout.write(text);
    });
    if (!flags.json) context.stdout.write('\n');
    return result;
  } finally {
    progress.clear();
  }
}

/** On a terminal the story reads from its beginning; a pipe gets the generated text alone. */
function echoPrompt(prompt: string, context: CliContext): void {
  if (context.stdout.isTTY) context.stdout.write(dim(prompt, context.stdout, context.env));
}

/** The prompt: words of the command line, '-' for all of stdin, or --input-ids. Throws OptionError. */
function readPrompt(words: readonly string[], flags: RunFlags): Prompt {
  if (flags.inputIds !== undefined) {
    if (words.length > 0) throw new OptionError('prompt', 'nothing beside --input-ids', words.join(' '));
    return { inputIds: parseInputIds(flags.inputIds) };
  }
  if (words.length === 0) {
    throw new OptionError('prompt', 'a text', undefined, {
      hint: 'Write for example: nearmoe "Once upon a time". `-` reads the prompt from stdin.',
    });
  }
  return words.length === 1 && words[0] === '-' ? readStdin() : words.join(' ');
}

function readStdin(): string {
  try {
    return readFileSync(0, 'utf8');
  } catch (cause) {
    throw new NearmoeError('ERR_OPTION', 'The prompt could not be read from stdin', { cause });
  }
}
