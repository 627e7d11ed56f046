/**
 * The engine of one loaded model: takes requests, computes them together step by step, reports text and results.
 * Driven by worker.ts, which calls step() while there is work; synchronous, on the worker's thread. With a device in
 * virtual time the same code runs in simulation.
 */
import type { Device } from '../device/device.js';
import { DeviceError } from '../errors.js';
import type { Constraint } from '../grammar/constraint.js';
import type { ResponseFormat } from '../grammar/response-format.js';
import type { DecodeStreamOptions } from '../model/decode-stream.js';
import type { RequestOptions } from '../options.js';
import { Batcher, type BatchLimits, type StepEntry } from './batcher.js';
import { candidatesOfRow } from './candidates.js';
import type { Forward, StepOutput } from './forward.js';
import { KV_BLOCK_TOKENS, KvBlocks } from './kv-blocks.js';
import { type StepPart, UNREAD_PARTS } from './messages.js';
import { Request, type TextStream } from './request.js';
import { checkBias, checkPrompt, requestParams } from './request-params.js';
import type { GenerateResult } from './result.js';
import { RoutingRecorder } from './routing-recorder.js';
import type { SamplingParams } from './sampler.js';
import { Sequence } from './sequence.js';
import type { EngineStats } from './stats.js';
import type { Telemetry } from './telemetry.js';

/** What the engine needs of a loaded model. */
export type EngineParts = {
  device: Device;
  forward: Forward;
  vocabSize: number;
  numExperts: number;
  topK: number;
  maxContext: number;
  kvBlocks: number;
  /** Slots for states; left out where the model has none. */
  stateSlots?: number;
  limits: BatchLimits;
  eosIds: ReadonlySet<number>;
  /** Sampling of the model's generation_config.json. */
  sampling: Partial<Omit<SamplingParams, 'seed'>>;
  textStream: (options: DecodeStreamOptions) => TextStream;
  /** Bytes of a token's text, for log-probabilities. */
  tokenBytes: (tokenId: number) => Uint8Array;
  /** Holds an answer to a form; `continuation` as in DecodeStreamOptions. Throws OptionError. */
  constrain: (format: ResponseFormat, continuation: boolean) => Constraint | undefined;
  /** Where the device has a GPU (recovery.ts): goes on after its failure. False: some other failure. */
  recover?: (error: unknown, batcher: Batcher, engine: Engine) => boolean;
  /** One flag per slot; other than 0: cancelled. */
  cancelFlags: Int32Array;
  /** Left out where nobody watches. */
  telemetry?: Telemetry;
};

export type EngineEvents = {
  step(parts: StepPart[]): void;
  finished(id: number, result: GenerateResult): void;
  failed(id: number, error: unknown): void;
};

export class Engine {
  #parts: EngineParts;
  #events: EngineEvents;
  #batcher: Batcher;
  #blocks: KvBlocks;
  #requests = new Map<number, Request>();
  #tracing = false;

  constructor(parts: EngineParts, events: EngineEvents) {
    this.#parts = parts;
    this.#events = events;
    this.#blocks = new KvBlocks(parts.kvBlocks);
    this.#batcher = new Batcher(parts.limits, this.#blocks, new KvBlocks(parts.stateSlots ?? 0));
  }

  /** Unfinished requests. */
  get requestCount(): number {
    return this.#requests.size;
  }

  /** Requests and KV blocks at this moment. */
  get state(): Pick<EngineStats, 'requests' | 'kvBlocks'> {
    const { total, freeCount: free } = this.#blocks;
    return { requests: this.#batcher.counts, kvBlocks: { total, free, tokensPerBlock: KV_BLOCK_TOKENS } };
  }

  /** Takes a request in. Throws PromptError, OptionError. */
  add(
    id: number,
    cancelSlot: number,
    prompt: Int32Array,
    options: RequestOptions,
    continuation = true,
  ): void {
    const { maxContext, vocabSize, device, forward } = this.#parts;
    checkPrompt(prompt, vocabSize, maxContext);
    const params = requestParams(options, this.#parts.sampling);
    checkBias(params.sampling, vocabSize);
    const capacity = Math.min(prompt.length + params.maxTokens, maxContext);
    const sequence = new Sequence(id, cancelSlot, prompt, capacity);
    sequence.reusesBlocks = !options.recordRouting && params.promptLogprobs < 0;
    if (params.promptLogprobs >= 0) sequence.scored = 0;
    const { numExperts, topK, eosIds } = this.#parts;
    const request = new Request({
      sequence,
      params,
      eosIds,
      vocabSize,
      text: this.#parts.textStream({ continuation, skipSpecialTokens: options.skipSpecialTokens }),
      tokenBytes: this.#parts.tokenBytes,
      routing: options.recordRouting
        ? new RoutingRecorder(sequence, forward.moeLayers, numExperts, topK)
        : undefined,
      constraint: options.responseFormat && this.#parts.constrain(options.responseFormat, continuation),
      units: device.info.units,
      hasGpu: device.info.gpu !== 'off',
      arrivedUs: device.nowUs(),
    });
    this.#requests.set(id, request);
    this.#batcher.add(sequence);
  }

  /** Ends a request with what it has; unknown ids (it may just have ended) are ignored. */
  cancel(id: number): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    request.finish('cancelled');
    this.#close([request]);
  }

  /** The reader has taken `parts` more parts. */
  acknowledge(id: number, parts: number): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    request.unread -= parts;
    request.sequence.paused = request.unread >= UNREAD_PARTS;
  }

  /** Computes one step. False where there is nothing to compute: no request, or all of their readers lag. */
  step(): boolean {
    this.#cancelFlagged();
    const entries = this.#batcher.next();
    if (entries.length === 0) return false;
    const startUs = this.#parts.device.nowUs();
    this.#setTracing(entries);
    try {
      const output = this.#parts.forward.run(entries);
      // An aborted step has changed nothing; it is done again without the sequences that were cancelled.
      if (output.status === 'aborted') this.#requireFlagged(entries);
      else this.#complete(entries, output, startUs);
    } catch (error) {
      if (!this.#parts.recover?.(error, this.#batcher, this)) this.#fail(entries, error);
    }
    return true;
  }

  /** Ends all requests with an error. */
  failAll(error: unknown): void {
    for (const request of this.#requests.values()) this.#failOne(request, error);
  }

  #complete(entries: readonly StepEntry[], output: StepOutput, startUs: number): void {
    const { device, vocabSize } = this.#parts;
    this.#recordRouting(entries);
    const rowCounts = entries.map(({ sequence, count }) => sequence.logitRows(count));
    const computedUs = device.nowUs();
    this.#observe(entries, output, startUs, computedUs);
    this.#batcher.advance(entries);
    const requests: Request[] = [];
    let row = 0;
    entries.forEach(({ sequence }, index) => {
      const rows = output.logits.subarray(row * vocabSize, (row + (rowCounts[index] ?? 0)) * vocabSize);
      row += rowCounts[index] ?? 0;
      const request = this.#requests.get(sequence.id);
      if (request === undefined) return;
      requests.push(request);
      request.addStep(output.costs, startUs);
      request.score(rows);
      if (sequence.pending > 0) return;
      try {
        const top = sequence.candidates > 0 ? candidatesOfRow(output.candidates, row - 1) : undefined;
        request.accept(rows.subarray(rows.length - vocabSize), device.nowUs(), top);
      } catch (error) {
        // The others of the step go on.
        this.#failOne(request, error);
      }
    });
    if (row !== output.rows) throw new DeviceError(`the step gave ${output.rows} rows of logits, not ${row}`);
    this.#trace(requests, startUs, computedUs);
    const alive = requests.filter(({ id }) => this.#requests.has(id));
    const over = alive.filter((request) => request.finishReason !== undefined);
    this.#emit(alive);
    this.#close(over);
  }

  #observe(entries: readonly StepEntry[], output: StepOutput, startUs: number, endUs: number): void {
    const { telemetry, device } = this.#parts;
    if (telemetry === undefined) return;
    const tokens = entries.reduce((sum, { count }) => sum + count, 0);
    // A sequence in decode computes its newest token; all others are tokens of prompts, or computed anew.
    const decoded = entries.filter(({ sequence }) => sequence.generated > 0 && sequence.pending === 1).length;
    const step = { startUs, endUs, sequences: entries.length, costs: output.costs };
    telemetry.add({ ...step, promptTokens: tokens - decoded, generatedTokens: output.rows }, (layer) =>
      device.routing(layer),
    );
  }

  /** Sends what became certain; a request whose reader has too much unread pauses. */
  #emit(requests: readonly Request[]): void {
    const parts: StepPart[] = [];
    for (const request of requests) {
      const text = request.takeText();
      const progress = request.progress;
      if (text !== '') request.unread++;
      request.sequence.paused = request.unread >= UNREAD_PARTS;
      const logprobs = text === '' ? undefined : request.takeLogprobs();
      if (text !== '' || progress.phase === 'prefill')
        parts.push({ id: request.id, text, progress, logprobs });
    }
    if (parts.length > 0) this.#events.step(parts);
  }

  #close(requests: readonly Request[]): void {
    for (const request of requests) {
      const rest = request.takeText();
      const logprobs = request.takeLogprobs();
      if (rest !== '' || logprobs?.length)
        this.#events.step([{ id: request.id, text: rest, progress: request.progress, logprobs }]);
      this.#remove(request);
      this.#events.finished(request.id, request.result(this.#parts.device.nowUs()));
    }
  }

  #remove(request: Request): void {
    this.#requests.delete(request.id);
    this.#batcher.remove(request.sequence);
  }

  #failOne(request: Request, error: unknown): void {
    this.#remove(request);
    this.#events.failed(request.id, error);
  }

  #fail(entries: readonly StepEntry[], error: unknown): void {
    for (const { sequence } of entries) {
      const request = this.#requests.get(sequence.id);
      if (request !== undefined) this.#failOne(request, error);
    }
  }

  #isFlagged({ cancelSlot }: Sequence): boolean {
    return Atomics.load(this.#parts.cancelFlags, cancelSlot) !== 0;
  }

  #cancelFlagged(): void {
    for (const request of this.#requests.values())
      if (this.#isFlagged(request.sequence)) this.cancel(request.id);
  }

  #requireFlagged(entries: readonly StepEntry[]): void {
    if (entries.some(({ sequence }) => this.#isFlagged(sequence))) return;
    throw new DeviceError('the device aborted a step that nobody cancelled');
  }

  #recordRouting(entries: readonly StepEntry[]): void {
    let row = 0;
    for (const { sequence, count } of entries) {
      const recorder = this.#requests.get(sequence.id)?.routing;
      recorder?.add(sequence.computed, count, row, (layer) => this.#parts.device.routing(layer));
      row += count;
    }
  }

  #setTracing(entries: readonly StepEntry[]): void {
    const asked = entries.some(({ sequence }) => this.#requests.get(sequence.id)?.params.trace);
    const wanted = asked || this.#parts.telemetry?.wantsSpans === true;
    if (wanted !== this.#tracing) this.#parts.device.setTracing(wanted);
    this.#tracing = wanted;
  }

  #trace(requests: readonly Request[], startUs: number, computedUs: number): void {
    if (!this.#tracing) return;
    const { device } = this.#parts;
    const lane = { lane: 'engine', layer: -1 };
    const events = [
      ...device.takeTraceEvents(),
      { ...lane, name: 'step', startUs, endUs: computedUs },
      { ...lane, name: 'sample', startUs: computedUs, endUs: device.nowUs() },
    ];
    for (const request of requests) if (request.params.trace) request.trace.push(...events);
    const { telemetry } = this.#parts;
    if (telemetry?.wantsSpans)
      telemetry.addSpans({ startUs, endUs: device.nowUs(), sequences: requests.length }, events);
  }
}
