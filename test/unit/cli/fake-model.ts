/**
 * A model for tests of the command line: the real Generation fed with fixed text, so that what is tested is the
 * command line alone. The engine itself is tested through the built package (test/cli).
 */
import { PassThrough } from 'node:stream';
import type { CliContext } from '../../../src/cli/context.js';
import { TIMED_OPS } from '../../../src/device/device.js';
import { Generation } from '../../../src/engine/generation.js';
import type { GenerateResult, Model, OpTimesMs, PlanReport } from '../../../src/llm.js';
import type { ChatMessage, GenerateOptions, LoadOptions, Prompt } from '../../../src/options.js';

export const info: PlanReport = {
  architecture: 'qwen3_moe',
  layers: 4,
  moeLayers: 4,
  numExperts: 16,
  numExpertsPerTok: 4,
  units: 2,
  threadsPerUnit: 1,
  tpDegree: 2,
  ndpGroups: 1,
  gpu: 'host',
  isa: 'avx512',
  kvDtype: 'f32',
  maxContext: 512,
  maxSequences: 16,
  toolCalls: undefined,
  reasoning: undefined,
  policy: 'balanced',
  prefetch: 'prefill',
  cachePolicy: 'score',
  memory: [{ place: 'unit 0', kind: 'experts', sizeBytes: 12_345_678 }],
  expertSlots: 8,
  expertBytes: 100_000,
  residents: [],
  reasons: ['because'],
  warnings: [],
};

export const result: GenerateResult = {
  text: ' a time.',
  tokenIds: [5, 6],
  finishReason: 'length',
  seed: 7,
  usage: { promptTokens: 3, completionTokens: 2, totalTokens: 5, cachedPromptTokens: 0 },
  timings: {
    queueMs: 0.1,
    timeToFirstTokenMs: 12.34,
    prefillMs: 12,
    decodeMs: 20,
    totalMs: 33,
    prefillTokensPerSecond: 250,
    decodeTokensPerSecond: 99.6,
    perTokenMs: { p50: 10, p95: 11.2 },
  },
  experts: {
    activated: 64,
    onGpu: 24,
    onNdp: 40,
    hits: 18,
    misses: 6,
    prefetched: 9,
    prefetchUsed: 5,
    evictions: 2,
    guessable: 0,
    guessed: 0,
    bytesMoved: 1_500_000,
  },
  devices: {
    attentionMs: 9,
    gpuBusyMs: 4,
    transferBusyMs: 1,
    unitBusyMs: [8, 12],
    opMs: Object.fromEntries(TIMED_OPS.map((op) => [op, 1])) as OpTimesMs,
    imbalance: 1.2,
    scheduleMs: 0.4,
    stepsMs: 30,
    steps: 3,
  },
  logits: { rows: 2, vocabSize: 2, values: Float32Array.of(1.5, -2, 0, 3) },
  routing: {
    numExperts: 16,
    topK: 2,
    layers: [0],
    tokens: 2,
    promptTokens: 1,
    ids: Uint16Array.of(1, 2, 3, 258),
  },
  trace: [{ lane: 'gpu', name: 'attention', layer: 0, startUs: 5, endUs: 9 }],
};

export type Calls = {
  load: LoadOptions[];
  generate: { prompt: Prompt; options: GenerateOptions }[];
  chat: { messages: ChatMessage[]; options: GenerateOptions }[];
  disposed: number;
};

export type FakeOptions = {
  tty?: boolean;
  stdin?: string;
  /** Rejects loading. */
  loadError?: Error;
  /** Fails every request. */
  requestError?: Error;
  /** What the loaded model says of itself, where it differs. */
  info?: Partial<PlanReport>;
  /** Presses Ctrl-C during the request. */
  interrupt?: boolean;
};

/** A context that records what was written and called. */
export function fakeContext(options: FakeOptions = {}): {
  context: CliContext;
  out: () => string;
  err: () => string;
  calls: Calls;
} {
  const written = { out: '', err: '' };
  const calls: Calls = { load: [], generate: [], chat: [], disposed: 0 };
  const handlers = new Set<() => void>();
  const generation = (request: GenerateOptions) => startGeneration(request, options, handlers);
  const model = {
    info: { ...info, ...options.info },
    generate(prompt: Prompt, request: GenerateOptions) {
      calls.generate.push({ prompt, options: request });
      return generation(request);
    },
    chat(messages: ChatMessage[], request: GenerateOptions) {
      calls.chat.push({ messages: [...messages], options: request });
      return generation(request);
    },
    plan: async () => info,
    dispose: async () => {
      calls.disposed++;
    },
  };
  const stdin = new PassThrough();
  stdin.end(options.stdin ?? '');
  const isTTY = options.tty ?? false;
  const context: CliContext = {
    stdout: { write: (text) => (written.out += text), isTTY },
    stderr: { write: (text) => (written.err += text), isTTY, columns: 80 },
    stdin,
    env: {},
    onInterrupt(handler) {
      handlers.add(handler);
      return () => handlers.delete(handler);
    },
    onTerminate: () => () => undefined,
    exit: () => undefined,
    async loadModel(load) {
      calls.load.push(load);
      load.onProgress?.({ phase: 'weights', doneBytes: 10, totalBytes: 10 });
      if (options.loadError) throw options.loadError;
      return model as unknown as Model;
    },
  };
  return { context, out: () => written.out, err: () => written.err, calls };
}

function startGeneration(request: GenerateOptions, fake: FakeOptions, handlers: Set<() => void>): Generation {
  const cancelled: GenerateResult = { ...result, text: ' a', finishReason: 'cancelled' };
  const generation: Generation = new Generation(
    { cancel: () => generation.finish(cancelled), read: () => undefined },
    { onProgress: request.onProgress },
  );
  setImmediate(() => {
    if (fake.requestError) return generation.fail(fake.requestError);
    generation.push(' a', { phase: 'prefill', doneTokens: 3, totalTokens: 3 });
    if (fake.interrupt) {
      for (const handler of handlers) handler();
      return;
    }
    generation.push(' time.');
    generation.finish(result);
  });
  return generation;
}
