/**
 * Where an engine runs, seen from worker-client.ts: a worker thread of this process or, behind `isolate: 'process'`, one of
 * a child process (engine-process.ts), so that a crash of native code ends that process alone. Carries messages and
 * cancel flags; knows nothing of requests.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { EngineOptions } from '../options.js';
import {
  CANCEL_SLOTS,
  type FromWorker,
  type ToProcess,
  type ToWorker,
  type WorkerInput,
} from './messages.js';

export type HostEvents = {
  message(message: FromWorker): void;
  /** The thread or process is gone, asked to or not; the last event. */
  ended(reason: Error): void;
};

export interface EngineHost {
  /** Process that computes. */
  readonly pid: number;
  send(message: ToWorker): void;
  /** Sets the cancel flag of a slot, which native code reads between layers. */
  setFlag(slot: number, value: 0 | 1): void;
  /** Keeps this process alive, or no longer. */
  ref(): void;
  unref(): void;
}

export function startHost(
  isolate: 'thread' | 'process',
  options: EngineOptions,
  events: HostEvents,
): EngineHost {
  return isolate === 'process' ? new ProcessHost(options, events) : new ThreadHost(options, events);
}

class ThreadHost implements EngineHost {
  readonly pid = process.pid;
  #flags = new Int32Array(new SharedArrayBuffer(CANCEL_SLOTS * Int32Array.BYTES_PER_ELEMENT));
  #worker: Worker;

  constructor(options: EngineOptions, events: HostEvents) {
    const workerData: WorkerInput = { options, cancelFlags: this.#flags };
    let failure: Error | undefined;
    this.#worker = new Worker(new URL('./worker.js', import.meta.url), { workerData, name: 'nearmoe' });
    this.#worker.on('message', (message: FromWorker) => events.message(message));
    this.#worker.on('error', (error) => {
      failure = error;
    });
    this.#worker.on('exit', (status) => {
      events.ended(failure ?? new Error(`the worker ended with status ${status}`));
    });
  }

  send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  setFlag(slot: number, value: 0 | 1): void {
    Atomics.store(this.#flags, slot, value);
  }

  ref(): void {
    this.#worker.ref();
  }

  unref(): void {
    this.#worker.unref();
  }
}

class ProcessHost implements EngineHost {
  readonly pid: number;
  #child: ChildProcess;

  constructor(options: EngineOptions, events: HostEvents) {
    let failure: Error | undefined;
    let hasEnded = false;
    const end = (reason: Error) => {
      if (!hasEnded) events.ended(reason);
      hasEnded = true;
    };
    this.#child = fork(fileURLToPath(new URL('./engine-process.js', import.meta.url)), [], {
      serialization: 'advanced',
      // Flags of the host's own process (inspector ports, loaders) are not the engine's.
      execArgv: [],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    this.pid = this.#child.pid ?? -1;
    this.#child.on('message', (message: FromWorker | { type: 'crashed'; message: string }) => {
      if (message.type === 'crashed') failure = new Error(message.message);
      else events.message(message);
    });
    // Only a process that could not be started ends without 'exit'.
    this.#child.on('error', (error) => {
      if (this.#child.pid === undefined) end(error);
    });
    this.#child.on('exit', (status, signal) => {
      end(
        failure ??
          new Error(`the engine's process ended ${signal ? `by ${signal}` : `with status ${status}`}`),
      );
    });
    this.#post({ type: 'start', options });
  }

  send(message: ToWorker): void {
    this.#post(message);
  }

  setFlag(slot: number, value: 0 | 1): void {
    this.#post({ type: 'flag', slot, value });
  }

  ref(): void {
    this.#child.ref();
    this.#child.channel?.ref();
  }

  unref(): void {
    this.#child.unref();
    this.#child.channel?.unref();
  }

  #post(message: ToProcess): void {
    // A process that is gone tells so by 'exit'; what was on its way to it is answered there.
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }
}
