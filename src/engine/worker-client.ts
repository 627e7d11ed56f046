/**
 * The main thread's end of one engine worker: starts it, sends requests, hands answers to their Generations, ends it.
 * Called by llm.ts. Nothing here waits synchronously or computes. The worker keeps the process alive only while
 * something is under way.
 */
import { Worker } from 'node:worker_threads';
import { AbortedError, DisposedError, deserializeError, EngineCrashedError } from '../errors.js';
import type { EngineOptions, GenerateOptions, LoadOptions, RequestOptions } from '../options.js';
import { Generation } from './generation.js';
import {
  ACKNOWLEDGE_EVERY,
  CANCEL_SLOTS,
  ENGINE_SLOT,
  type FromWorker,
  type PromptMessage,
  type ToWorker,
  type WorkerInput,
} from './messages.js';
import type { GenerateResult, PlanReport } from './result.js';
import type { EngineStats } from './stats.js';

type Pending = { generation: Generation; slot: number; unacknowledged: number };
type Deferred<Value> = { resolve: (value: Value) => void; reject: (error: unknown) => void };

export class WorkerClient {
  #worker: Worker;
  #flags = new Int32Array(new SharedArrayBuffer(CANCEL_SLOTS * Int32Array.BYTES_PER_ELEMENT));
  #freeSlots: number[] = [];
  #pending = new Map<number, Pending>();
  /** Questions about the engine that it has not answered yet. */
  #asked = new Map<number, Deferred<unknown>>();
  #nextId = 1;
  #load: Deferred<PlanReport> | undefined;
  #onLoadProgress: LoadOptions['onProgress'];
  #disposing: Promise<void> | undefined;
  #ended: Error | undefined;
  #exited: Promise<void>;

  constructor(options: EngineOptions) {
    for (let slot = CANCEL_SLOTS - 1; slot > ENGINE_SLOT; slot--) this.#freeSlots.push(slot);
    const workerData: WorkerInput = { options, cancelFlags: this.#flags };
    this.#worker = new Worker(new URL('./worker.js', import.meta.url), { workerData, name: 'nearmoe' });
    this.#worker.on('message', (message: FromWorker) => this.#receive(message));
    this.#worker.on('error', (error) => this.#crash(error));
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', (status) => {
        if (this.#disposing === undefined) this.#crash(new Error(`the worker ended with status ${status}`));
        resolve();
      });
    });
  }

  /** Resolves when the model is ready. Rejects with what went wrong, the worker being ended then. */
  async load(onProgress: LoadOptions['onProgress'], signal: AbortSignal | undefined): Promise<PlanReport> {
    this.#onLoadProgress = onProgress;
    const abort = () => Atomics.store(this.#flags, ENGINE_SLOT, 1);
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
  generate(prompt: PromptMessage, options: RequestOptions, callbacks: GenerateOptions): Generation {
    const id = this.#nextId++;
    // Beyond 4,095 unfinished requests one has no slot of its own: it is then cancelled between steps, by message.
    const slot = this.#freeSlots.pop() ?? ENGINE_SLOT;
    const generation = new Generation(
      { cancel: () => this.#cancel(id), read: (n) => this.#read(id, n) },
      callbacks,
    );
    this.#pending.set(id, { generation, slot, unacknowledged: 0 });
    const refusal = this.#refusal() ?? abortedAlready(callbacks.signal);
    if (refusal !== undefined) {
      this.#release(id)?.generation.fail(refusal);
      return generation;
    }
    if (slot !== ENGINE_SLOT) Atomics.store(this.#flags, slot, 0);
    this.#worker.ref();
    this.#send({ type: 'generate', id, slot, prompt, options });
    return generation;
  }

  /** What is placed where, now. */
  plan(): Promise<PlanReport> {
    return this.#ask((id) => ({ type: 'plan', id }));
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
      this.#worker.ref();
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
      this.#worker.ref();
      Atomics.store(this.#flags, ENGINE_SLOT, 1);
      for (const { slot } of this.#pending.values()) Atomics.store(this.#flags, slot, 1);
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
      case 'finished':
        this.#finish(message.id, message.result);
        break;
      case 'failed':
        this.#release(message.id)?.generation.fail(deserializeError(message.error));
        break;
      case 'planned':
        this.#answer(message.id, message.report);
        break;
      case 'counted':
        this.#answer(message.id, message.stats);
        break;
      case 'load-progress':
        this.#onLoadProgress?.(message.progress);
        return;
      case 'loaded':
        this.#load?.resolve(message.report);
        return;
      case 'load-failed':
        this.#load?.reject(deserializeError(message.error));
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
    if (pending.slot !== ENGINE_SLOT) Atomics.store(this.#flags, pending.slot, 1);
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

  #crash(cause: Error): void {
    const error = new EngineCrashedError(`The engine's worker ended unexpectedly: ${cause.message}`, {
      cause,
      hint: 'Load the model again; if it happens again, please report it with the message.',
    });
    this.#ended ??= error;
    this.#load?.reject(error);
    this.#failAll(error);
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
    if (this.#pending.size === 0 && this.#asked.size === 0 && this.#disposing === undefined)
      this.#worker.unref();
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }
}

function abortedAlready(signal: AbortSignal | undefined): Error | undefined {
  return signal?.aborted ? new AbortedError('The generation', signal.reason) : undefined;
}
