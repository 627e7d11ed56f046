/**
 * The worker thread of one loaded model: loads it, then alternates between taking messages and computing steps.
 * Started by worker-client.ts. While there is work, messages are taken synchronously between steps; the event loop
 * is entered when idle, and now and then so that timers and the inspector get their turn.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { serializeError } from '../errors.js';
import { type LoadedModel, loadModel } from './load.js';
import type { FromWorker, PromptMessage, ToWorker, WorkerInput } from './messages.js';
import type { GenerateResult } from './result.js';

/** Longest stretch of steps without a turn of the event loop. */
const TURN_MS = 100;

if (parentPort === null) throw new Error('engine/worker.js is started by nearmoe itself');
const port = parentPort;
const { options, cancelFlags } = workerData as WorkerInput;

let model: LoadedModel | undefined;
let computing = false;
let disposed = false;

function send(message: FromWorker, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}

function start(): void {
  try {
    model = loadModel(options, cancelFlags, {
      progress: (progress) => send({ type: 'load-progress', progress }),
      step: (parts) => send({ type: 'step', parts }),
      finished: (id, result) => send({ type: 'finished', id, result }, buffersOf(result)),
      failed: (id, error) => send({ type: 'failed', id, error: serializeError(error) }),
    });
    send({ type: 'loaded', report: model.report() });
  } catch (error) {
    send({ type: 'load-failed', error: serializeError(error) });
  }
}

/** Large arrays of a result move to the main thread instead of being copied. */
function buffersOf({ logits, routing }: GenerateResult): ArrayBuffer[] {
  return [logits?.values.buffer, routing?.ids.buffer].filter((buffer) => buffer instanceof ArrayBuffer);
}

function receive(message: ToWorker): void {
  if (message.type === 'dispose') {
    disposed = true;
    model?.dispose();
    // With the port closed nothing keeps the worker alive.
    port.close();
  } else if (model !== undefined) receiveWith(model, message);
}

function receiveWith(loaded: LoadedModel, message: Exclude<ToWorker, { type: 'dispose' }>): void {
  const { engine } = loaded;
  if (message.type === 'generate') addRequest(loaded, message);
  else if (message.type === 'cancel') engine.cancel(message.id);
  else if (message.type === 'acknowledge') engine.acknowledge(message.id, message.parts);
  else if (message.type === 'inspect') send({ type: 'inspected', id: message.id, facts: loaded.facts() });
  else if (message.type === 'stats')
    send({ type: 'counted', id: message.id, stats: loaded.stats(message.timeline) });
  else send({ type: 'planned', id: message.id, report: loaded.report() });
}

function addRequest(
  loaded: LoadedModel,
  { id, slot, prompt, options }: ToWorker & { type: 'generate' },
): void {
  try {
    // An answer in a chat is a text of its own; anything else continues its prompt.
    const { ids, inReasoning } = promptIds(loaded, prompt);
    loaded.engine.add(id, slot, ids, options, prompt.kind !== 'chat');
    if (inReasoning) send({ type: 'in-reasoning', id });
  } catch (error) {
    send({ type: 'failed', id, error: serializeError(error) });
  }
}

function promptIds(loaded: LoadedModel, prompt: PromptMessage): { ids: Int32Array; inReasoning?: boolean } {
  if (prompt.kind === 'ids') return prompt;
  if (prompt.kind === 'text') return { ids: loaded.encode(prompt.text) };
  return loaded.encodeChat(prompt.messages, prompt.template);
}

/** Computes until there is nothing to do; afterwards the event loop waits for the next message. */
function compute(): void {
  computing = false;
  const turnEndMs = performance.now() + TURN_MS;
  while (!disposed && model?.engine.step()) {
    for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
      receive(next.message as ToWorker);
      if (disposed) return;
    }
    if (performance.now() < turnEndMs) continue;
    wake();
    return;
  }
}

function wake(): void {
  if (!computing) setImmediate(compute);
  computing = true;
}

port.on('message', (message: ToWorker) => {
  receive(message);
  if (!disposed) wake();
});
start();
