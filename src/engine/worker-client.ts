/**
 * The main thread's end of one engine worker: starts it, sends requests, hands answers to their Generations, ends it.
 * Called by llm.ts. Nothing here waits synchronously or computes. The worker keeps the process alive only while
 * something is under way.
 */
import { AbortedError, DisposedError, deserializeError, EngineCrashedError } from '../errors.js';
import type { EngineOptions, LoadOptions, RequestOptions } from '../options.js';
import { CHANNELS, type EngineEvent, publish, traceRequest } from './diagnostics.js';
import { type EngineHost, startHost } from './engine-host.js';
import { Generation, type GenerationOptions } from './generation.js';
import {
  ACKNOWLEDGE_EVERY,
  CANCEL_SLOTS,
  ENGINE_SLOT,
  type FromWorker,
  type PromptMessage,
  type ToWorker,
} from './messages.js';
import type { ModelFacts } from './model-facts.js';
import type { GenerateResult, PlanReport } from './result.js';
import type { EngineStats } from './stats.js';

type Pending = { generation: Generation; slot: number; unacknowledged: number };
type Deferred<Value> = { resolve: (value: Value) => void; reject: (error: unknown) => void };

export class WorkerClient {
  #options: EngineOptions;
  #isolate: 'thread' | 'process';
  #host!: EngineHost;
  #isReady = false;
  #freeSlots: number[] = [];
  #pending = new Map<number, Pending>();
  /** Questions about the engine that it has not answered yet. */
  #asked = new Map<number, Deferred<unknown>>();
  #nextId = 1;
  #load: Deferred<PlanReport> | undefined;
  #onLoadProgress: LoadOptions['onProgress'];
  #disposing: Promise<void> | undefined;
  #ended: Error | undefined;
  #exited!: Promise<void>;

  constructor(options: EngineOptions, isolate: 'thread' | 'process' = 'thread') {
    this.#options = options;
    this.#isolate = isolate;
    for (let slot = CANCEL_SLOTS - 1; slot > ENGINE_SLOT; slot--) this.#freeSlots.push(slot);
    this.#start();
  }

  #start(): void {
    this.#isReady = false;
    this.#exited = new Promise((resolve) => {
      this.#host = startHost(this.#isolate, this.#options, {
        message: (message) => this.#receive(message),
        ended: (reason) => {
          if (this.#disposing === undefined) this.#crash(reason);
          else publish(CHANNELS.engineEnd, () => this.#event());
          resolve();
        },
      });
    });
    publish(CHANNELS.engineStart, () => this.#event());
  }

  #event(error?: Error): EngineEvent {
    return { model: this.#options.model, pid: this.#host.pid, options: this.#options, error };
  }

  /** Resolves when the model is ready. Rejects with what went wrong, the worker being ended then. */
  async load(onProgress: LoadOptions['onProgress'], signal: AbortSignal | undefined): Promise<PlanReport> {
    this.#onLoadProgress = onProgress;
    const abort = () => this.#host.setFlag(ENGINE_SLOT, 1);
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    try {
      const report = await new Promise<PlanReport>((resolve, reject) => {
        this.#load = { resolve, reject };
      });
      this.#restIfIdle();
      return report;
    } catch (error) {
      await this.dispose();
      throw signal?.aborted ? new AbortedError('Loading the model', signal.reason) : error;
    } finally {
      this.#load = undefined;
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Starts a request. Errors, also DisposedError, come through the generation. */
  generate(prompt: PromptMessage, options: RequestOptions, callbacks: GenerationOptions): Generation {
    const id = this.#nextId++;
    // Beyond 4,095 unfinished requests one has no slot of its own: it is then cancelled between steps, by message.
    const slot = this.#freeSlots.pop() ?? ENGINE_SLOT;
    const generation = new Generation(
      { cancel: () => this.#cancel(id), read: (n) => this.#read(id, n) },
      callbacks,
    );
    this.#pending.set(id, { generation, slot, unacknowledged: 0 });
    const operation = prompt.kind === 'chat' ? 'chat' : 'text_completion';
    const { model } = this.#options;
    traceRequest({ request: generation, operation, model, options }, generation.result);
    const refusal = this.#refusal() ?? abortedAlready(callbacks.signal);
    if (refusal !== undefined) {
      this.#release(id)?.generation.fail(refusal);
      return generation;
    }
    if (slot !== ENGINE_SLOT) this.#host.setFlag(slot, 0);
    this.#host.ref();
    this.#send({ type: 'generate', id, slot, prompt, options });
    return generation;
  }

  /** What is placed where, now. */
  plan(): Promise<PlanReport> {
    return this.#ask((id) => ({ type: 'plan', id }));
  }

  /** What the model weighs. */
  inspect(): Promise<ModelFacts> {
    return this.#ask((id) => ({ type: 'inspect', id }));
  }

  /** What the engine did so far. */
  stats(timeline: boolean): Promise<EngineStats> {
    return this.#ask((id) => ({ type: 'stats', id, timeline }));
  }

  #ask<Answer>(question: (id: number) => ToWorker): Promise<Answer> {
    const refusal = this.#refusal();
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise<Answer>((resolve, reject) => {
      const id = this.#nextId++;
      this.#asked.set(id, { resolve: resolve as (answer: unknown) => void, reject });
      this.#host.ref();
      this.#send(question(id));
    });
  }

  #answer(id: number, answer: unknown): void {
    this.#asked.get(id)?.resolve(answer);
    this.#asked.delete(id);
  }

  /** Ends running requests with DisposedError, frees everything, ends the worker. Idempotent. */
  dispose(): Promise<void> {
    this.#disposing ??= this.#dispose();
    return this.#disposing;
  }

  async #dispose(): Promise<void> {
    if (this.#ended === undefined) {
      this.#host.ref();
      this.#host.setFlag(ENGINE_SLOT, 1);
      for (const { slot } of this.#pending.values()) this.#host.setFlag(slot, 1);
      this.#send({ type: 'dispose' });
    }
    await this.#exited;
    this.#failAll(new DisposedError());
  }

  #receive(message: FromWorker): void {
    switch (message.type) {
      case 'step':
        for (const part of message.parts)
          this.#pending.get(part.id)?.generation.push(part.text, part.progress, part.logprobs);
        return;
      case 'in-reasoning':
        this.#pending.get(message.id)?.generation.openReasoning();
        return;
      case 'finished':
        this.#finish(message.id, message.result);
        break;
      case 'failed':
        this.#release(message.id)?.generation.fail(deserializeError(message.error));
        break;
      case 'planned':
        this.#answer(message.id, message.report);
        break;
      case 'inspected':
        this.#answer(message.id, message.facts);
        break;
      case 'counted':
        this.#answer(message.id, message.stats);
        break;
      case 'load-progress':
        this.#onLoadProgress?.(message.progress);
        return;
      case 'loaded':
        this.#isReady = true;
        publish(CHANNELS.engineReady, () => this.#event());
        this.#load?.resolve(message.report);
        break;
      case 'load-failed':
        this.#failLoad(deserializeError(message.error));
        return;
    }
    this.#restIfIdle();
  }

  #finish(id: number, result: GenerateResult): void {
    const generation = this.#release(id)?.generation;
    const wasDisposed = this.#disposing !== undefined && result.finishReason === 'cancelled';
    if (wasDisposed) generation?.fail(new DisposedError());
    else generation?.finish(result);
  }

  #cancel(id: number): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    if (pending.slot !== ENGINE_SLOT) this.#host.setFlag(pending.slot, 1);
    this.#send({ type: 'cancel', id });
  }

  #read(id: number, parts: number): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    pending.unacknowledged += parts;
    if (pending.unacknowledged < ACKNOWLEDGE_EVERY) return;
    this.#send({ type: 'acknowledge', id, parts: pending.unacknowledged });
    pending.unacknowledged = 0;
  }

  #release(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (pending !== undefined && pending.slot !== ENGINE_SLOT) this.#freeSlots.push(pending.slot);
    return pending;
  }

  #failLoad(error: Error): void {
    this.#load?.reject(error);
    if (this.#load !== undefined) return;
    // Loading anew after a crash: nobody waits for it but the requests that came since.
    this.#ended = error;
    this.#failAll(error);
  }

  #crash(cause: Error): void {
    const willRestart = this.#isolate === 'process' && this.#isReady;
    const error = new EngineCrashedError(`The engine ended unexpectedly: ${cause.message}`, {
      cause,
      hint: willRestart
        ? 'It is being loaded again; send the request again.'
        : 'Load the model again; if it happens again, please report it with the message.',
    });
    publish(CHANNELS.engineEnd, () => this.#event(error));
    this.#load?.reject(error);
    this.#failAll(error);
    // One that dies before it is ready would do so again.
    if (willRestart) this.#start();
    else this.#ended ??= error;
  }

  #failAll(error: Error): void {
    for (const id of [...this.#pending.keys()]) this.#release(id)?.generation.fail(error);
    for (const asked of this.#asked.values()) asked.reject(error);
    this.#asked.clear();
  }

  #refusal(): Error | undefined {
    return this.#disposing === undefined ? this.#ended : new DisposedError();
  }

  #restIfIdle(): void {
    const isBusy = this.#pending.size > 0 || this.#asked.size > 0 || !this.#isReady;
    if (!isBusy && this.#disposing === undefined) this.#host.unref();
  }

  #send(message: ToWorker): void {
    this.#host.send(message);
  }
}

function abortedAlready(signal: AbortSignal | undefined): Error | undefined {
  return signal?.aborted ? new AbortedError('The generation', signal.reason) : undefined;
}
