/**
 * The measured requests of a benchmark: `batch` sequences of random token ids at once, and a traced one that tells
 * where the time of a decode went. Called by the bench command; knows nothing of ceilings or tables.
 */
import { TIMED_OPS } from '../../device/device.js';
import type { GenerateResult, Model, OpTimesMs, TraceSpan } from '../../llm.js';
import type { RequestShape } from './workload.js';

export type Repetition = {
  /** Prompt tokens of all sequences until the last of them has its first token. */
  prefillTokensPerSecond: number;
  /** Tokens of all sequences behind their first ones. */
  decodeTokensPerSecond: number;
  /** Of the last sequence. */
  timeToFirstTokenMs: number;
};

/** Where the wall time of a phase went, milliseconds. */
export type StageTimes = OpTimesMs & {
  /** Native code beyond the timed ops: handing over jobs, threads that have nothing to do. */
  otherNativeMs: number;
  /** TypeScript: batching, planning, sampling, text, messages. */
  orchestrationMs: number;
};

/** Runs one repetition. Rejects with what the requests reject with. */
export async function runRepetition(
  model: Model,
  shape: RequestShape,
  prompts: Prompts,
): Promise<Repetition> {
  const results = await Promise.all(
    Array.from({ length: shape.batch }, () => request(model, shape, prompts)),
  );
  const firstTokenMs = Math.max(...results.map(({ timings }) => timings.timeToFirstTokenMs));
  const decodeMs = Math.max(...results.map(({ timings }) => timings.decodeMs));
  const decoded = shape.batch * (shape.genTokens - 1);
  return {
    prefillTokensPerSecond: (shape.batch * shape.promptTokens * 1e3) / firstTokenMs,
    decodeTokensPerSecond: decodeMs > 0 ? (decoded * 1e3) / decodeMs : 0,
    timeToFirstTokenMs: firstTokenMs,
  };
}

/** Stages of the prefill and of the decode of one sequence, from a prefill alone and a whole request. */
export async function runProfile(
  model: Model,
  shape: RequestShape,
  prompts: Prompts,
): Promise<{ prefill: StageTimes; decode: StageTimes }> {
  const prefill = await request(model, { ...shape, genTokens: 1 }, prompts, true);
  const whole = await request(model, shape, prompts, true);
  const steps = (whole.trace ?? []).filter(({ lane, name }) => lane === 'engine' && name === 'step');
  const decodeStartUs = steps.at(1 - shape.genTokens)?.startUs ?? 0;
  return {
    prefill: stagesOf(prefill.trace ?? [], prefill.devices.opMs),
    decode: stagesOf(
      (whole.trace ?? []).filter(({ startUs }) => startUs >= decodeStartUs),
      difference(whole.devices.opMs, prefill.devices.opMs),
    ),
  };
}

/** `opMs`: what the compute threads counted; `spans`: the timeline of the same steps. */
export function stagesOf(spans: readonly TraceSpan[], opMs: OpTimesMs): StageTimes {
  const wallMs =
    (Math.max(...spans.map(({ endUs }) => endUs)) - Math.min(...spans.map(({ startUs }) => startUs))) / 1e3;
  const nativeMs = unionUs(spans.filter(({ lane }) => lane !== 'engine')) / 1e3;
  const timedMs = Object.values(opMs).reduce((sum, ms) => sum + ms, 0);
  return {
    ...opMs,
    otherNativeMs: Math.max(0, nativeMs - timedMs),
    orchestrationMs: Math.max(0, wallMs - nativeMs),
  };
}

/** Both with a prompt of the same length, so that what is left is the decode; two runs' noise must not turn negative. */
function difference(whole: OpTimesMs, prefill: OpTimesMs): OpTimesMs {
  return Object.fromEntries(TIMED_OPS.map((op) => [op, Math.max(0, whole[op] - prefill[op])])) as OpTimesMs;
}

/** Time during which at least one of the spans ran. */
function unionUs(spans: readonly TraceSpan[]): number {
  let sum = 0;
  let end = Number.NEGATIVE_INFINITY;
  for (const { startUs, endUs } of [...spans].sort((a, b) => a.startUs - b.startUs)) {
    sum += Math.max(0, endUs - Math.max(startUs, end));
    end = Math.max(end, endUs);
  }
  return sum;
}

async function request(
  model: Model,
  { promptTokens, genTokens }: RequestShape,
  prompts: Prompts,
  trace = false,
): Promise<GenerateResult> {
  const inputIds = prompts(promptTokens);
  const options = { maxTokens: genTokens, temperature: 0, ignoreEos: true, trace };
  return model.generate({ inputIds }, options).result;
}

/** Gives a prompt of `count` token ids that no earlier call gave. */
export type Prompts = (count: number) => number[];

/**
 * Reproducible prompts: a linear congruential generator's upper bits. The generator runs on from prompt to prompt, so
 * that no prompt begins like an earlier one, whose KV cache would then be found instead of computed.
 */
export function freshPrompts(vocabSize: number): Prompts {
  let state = 1;
  return (count) =>
    Array.from({ length: count }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * vocabSize);
    });
}
