/**
 * From an understood request to its response, the same way for both endpoints: waits for a place, starts the answers,
 * sends them whole or as events, and frees the place whatever happens. The endpoints say through AnswerFormat what
 * their bodies look like.
 */
import type { GenerateResult, Generation, GenerationPart } from '../llm.js';
import type { GenerateOptions, GenerateProgress } from '../options.js';
import type { Admission } from './admission.js';
import { toApiError } from './api-error.js';
import { eventStream } from './event-stream.js';
import type { Delivery } from './generation-parameters.js';
import type { Outcome } from './metrics.js';
import { clientLeft, type RequestLife } from './request-life.js';
import type { ServerSettings } from './server-options.js';
import { type UsageBody, usageOf } from './usage.js';

/** What a generation needs of the side that runs it. */
export type Callbacks = Required<Pick<GenerateOptions, 'signal' | 'onProgress'>>;

/** The bodies of one endpoint. Answers are numbered from 0. */
export interface AnswerFormat {
  /** Chunks that open an answer, before its first part. */
  opening(index: number): object[];
  /** Chunks of one part. */
  part(index: number, part: GenerationPart): object[];
  /** Chunks that close an answer. */
  closing(index: number, result: GenerateResult): object[];
  /** The chunk behind all answers that holds the usage. */
  usage(usage: UsageBody): object;
  /** The body that is sent in one piece. */
  whole(answers: readonly WholeAnswer[], usage: UsageBody): object;
}

export type WholeAnswer = { parts: readonly GenerationPart[]; result: GenerateResult };

export type Work = {
  delivery: Delivery;
  /** Answers that are computed: prompts x n. */
  places: number;
  start(callbacks: Callbacks): Generation[];
  format: AnswerFormat;
};

export type Desk = {
  admission: Admission;
  settings: ServerSettings;
  client: string;
  life: RequestLife;
  /** Called once. */
  onEnd: (outcome: Outcome) => void;
};

/** Rejects with what is wrong as long as nothing was sent. */
export async function respond(desk: Desk, work: Work): Promise<Response> {
  const { admission, settings, client, life } = desk;
  let release: () => void;
  try {
    release = await admission.enter(client, work.places, life.signal);
  } catch (error) {
    life.end();
    const { ageMs } = life;
    desk.onEnd({ results: [], error, queueMs: undefined, firstPartMs: undefined, totalMs: ageMs });
    throw error;
  }
  life.limit(settings.requestTimeoutMs);
  let progress: GenerateProgress | undefined;
  const events = answer(desk, work, release, (latest) => {
    progress ??= latest;
    if (latest.phase === 'prefill') progress = latest;
  });
  if (!work.delivery.stream) return Response.json(await whole(events, work));
  const stream = await eventStream(chunksOf(events, work), {
    heartbeatMs: settings.heartbeatMs,
    comment: () => (progress ? `prefill ${progress.doneTokens}/${progress.totalTokens}` : 'waiting'),
    onCancel: () => life.clientLeft(),
  });
  const headers = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' };
  return new Response(stream, { headers: { ...headers, 'x-accel-buffering': 'no' } });
}

type AnswerEvent = { index: number; part: GenerationPart } | { index: number; result: GenerateResult };

/** Runs the answers and gives their parts and results as they come. Leaving early ends them. */
async function* answer(
  { life, onEnd }: Desk,
  work: Work,
  release: () => void,
  onProgress: (progress: GenerateProgress) => void,
): AsyncGenerator<AnswerEvent, void> {
  const results: GenerateResult[] = [];
  const queueMs = life.ageMs;
  let firstPartMs: number | undefined;
  let generations: Generation[] = [];
  let error: unknown;
  try {
    generations = work.start({ signal: life.signal, onProgress });
    for await (const event of merged(generations)) {
      if ('result' in event) results[event.index] = event.result;
      else firstPartMs ??= life.ageMs;
      yield event;
    }
  } catch (thrown) {
    error = toApiError(thrown);
    throw error;
  } finally {
    if (results.filter(Boolean).length < work.places) error ??= life.signal.reason ?? clientLeft();
    for (const generation of generations) generation.cancel();
    // The engine says when it has let go of an answer; only then the place is free.
    await Promise.allSettled(generations.map(({ result }) => result));
    release();
    life.end();
    onEnd({ results: results.filter(Boolean), error, queueMs, firstPartMs, totalMs: life.ageMs });
  }
}

async function* eventsOf(index: number, generation: Generation): AsyncGenerator<AnswerEvent, void> {
  for await (const part of generation.parts()) yield { index, part };
  yield { index, result: await generation.result };
}

/** The events of all answers, each as soon as it is there. */
async function* merged(generations: readonly Generation[]): AsyncGenerator<AnswerEvent, void> {
  const sources = generations.map((generation, index) => eventsOf(index, generation));
  const advance = (index: number) => {
    const step = (async () => ({ index, next: await sources[index]?.next() }))();
    // Where the reader leaves, or another answer fails first, nobody waits for this one any more.
    step.catch(() => undefined);
    return step;
  };
  const waiting = new Map(sources.map((_, index) => [index, advance(index)]));
  while (waiting.size > 0) {
    const { index, next } = await Promise.race(waiting.values());
    if (next === undefined || next.done) {
      waiting.delete(index);
      continue;
    }
    waiting.set(index, advance(index));
    yield next.value;
  }
}

async function whole(events: AsyncGenerator<AnswerEvent, void>, { places, delivery, format }: Work) {
  const parts = Array.from({ length: places }, (): GenerationPart[] => []);
  const results: GenerateResult[] = [];
  for await (const event of events) {
    if ('part' in event) parts[event.index]?.push(event.part);
    else results[event.index] = event.result;
  }
  const answers = results.map((result, index) => ({ parts: parts[index] ?? [], result }));
  return format.whole(answers, usageOf(results, delivery.n));
}

async function* chunksOf(
  events: AsyncGenerator<AnswerEvent, void>,
  { delivery, format }: Work,
): AsyncGenerator<object, void> {
  const opened = new Set<number>();
  const results: GenerateResult[] = [];
  for await (const event of events) {
    const { index } = event;
    if (!opened.has(index)) yield* format.opening(index);
    opened.add(index);
    if ('part' in event) yield* format.part(index, event.part);
    else {
      results[index] = event.result;
      yield* format.closing(index, event.result);
    }
  }
  if (delivery.includeUsage) yield format.usage(usageOf(results, delivery.n));
}
