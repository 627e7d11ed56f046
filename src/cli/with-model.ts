/**
 * Loading and one request, as every command does them: progress on a terminal, Ctrl-C, disposal. Called by run.ts and
 * chat.ts. The first Ctrl-C ends the load or the request in an orderly way, a second one ends the process.
 */
import type { GenerateResult, Generation, Model } from '../llm.js';
import type { GenerateProgress, LoadOptions } from '../options.js';
import type { CliContext } from './context.js';
import type { LoadFlags } from './flags.js';
import { formatBytes, formatMs } from './format.js';
import { ProgressLine } from './progress.js';

/** Loads a model, hands it to `use` and disposes it whatever happens. Rejects with AbortedError on Ctrl-C. */
export async function withModel<Result>(
  context: CliContext,
  options: LoadOptions,
  use: (model: Model, loadMs: number) => Promise<Result>,
): Promise<Result> {
  const started = performance.now();
  const model = await load(context, options);
  try {
    return await use(model, performance.now() - started);
  } finally {
    await model.dispose();
  }
}

async function load(context: CliContext, options: LoadOptions): Promise<Model> {
  const progress = new ProgressLine(context.stderr);
  const controller = new AbortController();
  const release = context.onInterrupt(() => controller.abort(new Error('interrupted')));
  try {
    return await context.loadModel({
      ...options,
      signal: controller.signal,
      onProgress: ({ phase, doneBytes, totalBytes, warning }) => {
        if (warning !== undefined) {
          progress.clear();
          context.stderr.write(`warning: ${warning}\n`);
        }
        progress.update('load', doneBytes, totalBytes, `${formatBytes(totalBytes)}, ${phase}`);
      },
    });
  } finally {
    release();
    progress.clear();
  }
}

/** Shows how far the prompt has been computed; given to `generate` as onProgress. */
export function prefillProgress(context: CliContext): {
  onProgress: (progress: GenerateProgress) => void;
  clear: () => void;
} {
  const line = new ProgressLine(context.stderr);
  return {
    onProgress: ({ phase, doneTokens, totalTokens }) => {
      if (phase === 'prefill') line.update('prefill', doneTokens, totalTokens, `${totalTokens} tokens`);
    },
    clear: () => line.clear(),
  };
}

/**
 * Runs one request to its end and hands its text to `onText`, part by part. Ctrl-C ends it early: the result then
 * says finishReason 'cancelled'.
 */
export async function runGeneration(
  context: CliContext,
  generation: Generation,
  onText: (text: string) => void,
): Promise<GenerateResult> {
  const release = context.onInterrupt(() => generation.cancel());
  try {
    for await (const part of generation) onText(part);
    return await generation.result;
  } finally {
    release();
  }
}

/** Flags that only a GPU lane heeds. */
const GPU_FLAGS = {
  '--policy': 'policy',
  '--prefetch': 'prefetch',
  '--cache-policy': 'cachePolicy',
  '--vram': 'vram',
  '--transfer-bandwidth': 'transferBandwidth',
  '--gpu-threads': 'gpuThreads',
} as const;

/** What was loaded, and which flags have no effect on it. */
export function loadedLines(model: Model, loadMs: number, flags: LoadFlags): string[] {
  const { info } = model;
  const held = info.memory.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const shape = `${info.architecture}: ${info.layers} layers, ${info.numExperts} experts`;
  const lines = [`${shape}, ${formatBytes(held)}, loaded in ${formatMs(loadMs)}`];
  const idle = Object.entries(GPU_FLAGS).flatMap(([flag, key]) => (flags[key] === undefined ? [] : [flag]));
  if (info.gpu === 'off' && idle.length > 0) {
    lines.push(`no effect without a GPU lane (--gpu host): ${idle.join(', ')}`);
  }
  return lines;
}
