/**
 * `nearmoe chat [message]`: a conversation by the model's own chat template. With a message: one answer and the end,
 * also as --json; without: turn by turn until Ctrl-D or /exit. Called by main.ts.
 */
import { createInterface } from 'node:readline/promises';
import { OptionError } from '../errors.js';
import type { GenerateResult, Model } from '../llm.js';
import type { ChatMessage } from '../options.js';
import type { CliContext } from './context.js';
import { type GenerateFlags, generateOptions, type LoadFlags, loadOptions } from './flags.js';
import { checkOutputFiles, writeOutputFiles } from './output-files.js';
import { errorText, note } from './report.js';
import { resultJson } from './result-json.js';
import { summaryLines } from './summary.js';
import { loadedLines, prefillProgress, runGeneration, withModel } from './with-model.js';

export type ChatFlags = LoadFlags & GenerateFlags & { system?: string };

/** Runs the command; resolves to the exit status. */
export async function chatCommand(
  words: readonly string[],
  flags: ChatFlags,
  context: CliContext,
): Promise<number> {
  const message = words.join(' ');
  if (message === '') {
    const flag = (['json', 'trace', 'recordRouting'] as const).find((name) => flags[name] !== undefined);
    if (flag)
      throw new OptionError(
        'message',
        `given beside --${flag === 'recordRouting' ? 'record-routing' : flag}`,
        undefined,
      );
  }
  checkOutputFiles(flags);
  return withModel(context, loadOptions(flags), async (model, loadMs) => {
    for (const line of loadedLines(model, loadMs, flags)) note(context, line);
    const history: ChatMessage[] = flags.system ? [{ role: 'system', content: flags.system }] : [];
    if (message === '') return converse(model, history, flags, context);
    const result = await answer(model, [...history, { role: 'user', content: message }], flags, context);
    for (const line of writeOutputFiles(flags, result, model.info)) note(context, line);
    if (flags.json) context.stdout.write(`${JSON.stringify(resultJson(result))}\n`);
    for (const line of summaryLines(result, model.info)) note(context, line);
    return result.finishReason === 'cancelled' ? 130 : 0;
  });
}

async function converse(
  model: Model,
  system: readonly ChatMessage[],
  flags: ChatFlags,
  context: CliContext,
): Promise<number> {
  const terminal = context.stdin.isTTY === true;
  const reader = createInterface({ input: context.stdin, terminal: false });
  const history = [...system];
  if (terminal) note(context, '/clear forgets the conversation, /exit or Ctrl-D ends it');
  try {
    prompt(context, terminal);
    for await (const line of reader) {
      const text = line.trim();
      if (text === '/exit') break;
      if (text === '/clear') history.splice(0, history.length, ...system);
      else if (text !== '') await turn(model, history, text, flags, context);
      prompt(context, terminal);
    }
  } finally {
    reader.close();
  }
  return 0;
}

/** One turn; an answer that fails is told and leaves the history as it was. */
async function turn(
  model: Model,
  history: ChatMessage[],
  text: string,
  flags: ChatFlags,
  context: CliContext,
): Promise<void> {
  const messages: ChatMessage[] = [...history, { role: 'user', content: text }];
  try {
    const result = await answer(model, messages, flags, context);
    history.splice(0, history.length, ...messages, {
      role: 'assistant',
      content: result.answer?.content ?? result.text,
    });
    const rate = result.timings.decodeTokensPerSecond.toFixed(1);
    note(context, `${result.usage.completionTokens} tokens, ${rate} tokens/s, end: ${result.finishReason}`);
  } catch (error) {
    context.stderr.write(errorText(error));
  }
}

async function answer(
  model: Model,
  messages: readonly ChatMessage[],
  flags: ChatFlags,
  context: CliContext,
): Promise<GenerateResult> {
  const progress = prefillProgress(context);
  try {
    const generation = model.chat(messages, { ...generateOptions(flags), onProgress: progress.onProgress });
    const result = await runGeneration(context, generation, (text) => {
      progress.clear();
      if (!flags.json) context.stdout.write(text);
    });
    if (!flags.json) context.stdout.write('\n');
    return result;
  } finally {
    progress.clear();
  }
}

function prompt(context: CliContext, terminal: boolean): void {
  if (terminal) context.stderr.write('> ');
}
