/**
 * The child process of `isolate: 'process'`: starts the engine's worker thread and hands messages on, both ways. Its own
 * thread computes nothing, so that a cancel flag is set at once, in the middle of a step. Started by engine-host.ts;
 * ends with the worker or when the parent is gone.
 */
import { Worker } from 'node:worker_threads';
import type { EngineOptions } from '../options.js';
import { CANCEL_SLOTS, type ToProcess, type WorkerInput } from './messages.js';

const cancelFlags = new Int32Array(new SharedArrayBuffer(CANCEL_SLOTS * Int32Array.BYTES_PER_ELEMENT));
let worker: Worker | undefined;

function start(options: EngineOptions): Worker {
  const workerData: WorkerInput = { options, cancelFlags };
  const started = new Worker(new URL('./worker.js', import.meta.url), { workerData, name: 'nearmoe' });
  started.on('message', (message: object) => process.send?.(message));
  started.on('error', (error) => process.send?.({ type: 'crashed', message: error.message }));
  started.on('exit', () => process.disconnect());
  return started;
}

process.on('message', (message: ToProcess) => {
  if (message.type === 'start') worker = start(message.options);
  else if (message.type === 'flag') Atomics.store(cancelFlags, message.slot, message.value);
  else worker?.postMessage(message);
});
process.on('disconnect', () => process.exit());
// A terminal sends these to the whole group; the parent decides when the engine ends.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
