/**
 * The Device of this machine: NDP units on CPU threads and, with gpu 'host', a GPU lane played by CPU threads.
 * Created and loaded by engine/load.ts, then driven by engine/forward.ts. Turns native errors into DeviceError;
 * computes nothing itself.
 */
import {
  binding,
  type GpuGraphs,
  type NativeDevice,
  type NativeDeviceOptions,
  type NativeLoadResult,
  OBSERVATION_HEAD,
} from '../binding.js';
import { DeviceError, DisposedError } from '../errors.js';
import type { ModelSpec } from '../model/model-spec.js';
import {
  type Device,
  type DeviceInfo,
  type DeviceTraceEvent,
  type LayerAssignment,
  type LayerGuess,
  type LayerObservation,
  type LayerRouting,
  type LogitsResult,
  type StepBatch,
  type StepStatus,
  TIMED_OPS,
} from './device.js';
import { asDeviceError } from './device-errors.js';
import { isGpuBackend } from './gpu.js';
import { GuessRanking } from './guess-ranking.js';
import { PlanEncoder, StepEncoder } from './step-wire.js';
import { readTraceEvents } from './trace-events.js';

export type ArenaAccess = Pick<NativeDevice, 'arenaSegments' | 'writeArena' | 'mapArenas'>;

/** Where a device is before it computes: weights go in, then finish() makes it ready. */
export interface LoadableDevice extends Device {
  /** Maps a file, or makes up one for "synthetic:<bytes>"; returns its index for the load table. */
  openFile(path: string): number;
  /** See binding.ts. Errors pass through with `code` and `row`, for the caller to name the tensor. */
  loadWeights(table: Float64Array, count: number): void;
  /** Packed weights as parts of a file; see binding.ts. */
  arenas(): ArenaAccess;
  /** All weights are in; bytes held by place. Throws DeviceError (ERR_WEIGHT_MISSING in its message). */
  finishLoad(): { denseBytes: number; expertBytes: number; expertSlabBytes: number };
  /**
   * Memory for the KV cache, for `stateSlots` states (0 where the model has none) and, with a GPU lane, VRAM slots. Call
   * once, after finishLoad.
   */
  allocate(
    kvBlocks: number,
    expertSlots: number,
    stateSlots: number,
  ): { kvBytes: number; stateBytes: number };
  /** Ends what there is and begins again with other options: nothing is loaded then. */
  restart(options: NativeDeviceOptions): void;
  /** Microseconds per expert with `tokens` tokens, on the GPU lane or on its NDP group (with a GPU lane only). */
  measureExperts(onGpu: boolean, tokens: number): number;
  /** Microseconds of one expert's transfer; needs at least one VRAM slot. */
  measureTransfer(): number;
  /** How decode reaches the GPU. */
  gpuGraphs(): GpuGraphs;
}

/** `cancelFlags` is an Int32Array on a SharedArrayBuffer; a flag that is not 0 aborts steps of its slot. */
export function createNativeDevice(
  spec: ModelSpec,
  options: NativeDeviceOptions,
  cancelFlags: Int32Array,
): LoadableDevice {
  return new HostDevice(spec, options, cancelFlags);
}

class HostDevice implements LoadableDevice {
  #native: NativeDevice | undefined;
  #spec: ModelSpec;
  #options: NativeDeviceOptions;
  #cancelFlags: Int32Array;
  #views: NativeLoadResult | undefined;
  #info: DeviceInfo;
  #moeLayers: number[];
  #logitRows = 0;
  #tokens = 0;
  #lastLayer = -1;
  #guess: GuessRanking;
  #steps = new StepEncoder();
  #plans = new PlanEncoder();
  #opTimesUs = new Float64Array(TIMED_OPS.length);

  constructor(spec: ModelSpec, options: NativeDeviceOptions, cancelFlags: Int32Array) {
    this.#spec = spec;
    this.#cancelFlags = cancelFlags;
    this.#moeLayers = spec.layers.flatMap(({ ffn }, layer) => (ffn.kind === 'moe' ? [layer] : []));
    const experts = spec.layers.map(({ ffn }) => (ffn.kind === 'moe' ? ffn.numExperts : 0));
    this.#guess = new GuessRanking(Math.max(0, ...experts));
    this.#options = options;
    this.#native = asDeviceError(() => binding().createDevice(spec, options, cancelFlags));
    this.#info = infoOf(options, this.#native.isa());
  }

  restart(options: NativeDeviceOptions): void {
    this.dispose();
    this.#options = options;
    const native = asDeviceError(() => binding().createDevice(this.#spec, options, this.#cancelFlags));
    this.#native = native;
    this.#info = infoOf(options, native.isa());
  }

  get info(): DeviceInfo {
    return this.#info;
  }

  nowUs(): number {
    return binding().nowUs();
  }

  openFile(path: string): number {
    const syntheticBytes = /^synthetic:(\d+)$/.exec(path)?.[1];
    return asDeviceError(() =>
      syntheticBytes === undefined
        ? this.#live().openFile(path)
        : this.#live().openSynthetic(Number(syntheticBytes)),
    );
  }

  loadWeights(table: Float64Array, count: number): void {
    this.#live().loadWeights(table, count);
  }

  arenas(): ArenaAccess {
    return this.#live();
  }

  finishLoad(): { denseBytes: number; expertBytes: number; expertSlabBytes: number } {
    const views = asDeviceError(() => this.#live().finishLoad());
    this.#views = views;
    this.#info = { ...this.#info, expertBytes: views.expertSlabBytes };
    const { denseBytes, expertBytes, expertSlabBytes } = views;
    return { denseBytes, expertBytes, expertSlabBytes };
  }

  allocate(kvBlocks: number, expertSlots: number, stateSlots: number) {
    const native = this.#live();
    return asDeviceError(() => {
      const kvBytes = native.allocateKv(kvBlocks);
      const stateBytes = stateSlots > 0 ? native.allocateStates(stateSlots) : 0;
      const slots = this.#options.gpu === 'off' ? 0 : native.allocateExpertSlots(expertSlots);
      this.#info = { ...this.#info, expertSlots: slots };
      return { kvBytes, stateBytes };
    });
  }

  measureExperts(onGpu: boolean, tokens: number): number {
    return asDeviceError(() => this.#live().measureExperts(onGpu, tokens));
  }

  measureTransfer(): number {
    return asDeviceError(() => this.#live().measureTransfer());
  }

  beginStep(batch: StepBatch): void {
    const { step, ropes } = this.#steps.encode(batch);
    asDeviceError(() => this.#live().beginStep(step, ropes));
    this.#tokens = step[1] ?? 0;
    this.#logitRows = batch.sequences.reduce((sum, sequence) => sum + sequence.logitRows, 0);
  }

  submitLayers(first: number, end: number): void {
    asDeviceError(() => this.#live().submitLayers(first, end));
  }

  runAttention(layer: number): StepStatus {
    this.#lastLayer = layer;
    return this.#run((native) => native.submitAttention(layer));
  }

  lookahead(): LayerGuess | undefined {
    const { guessedTokens, guessIds, guessWeights } = this.#loaded();
    const next = this.#moeLayers.find((layer) => layer > this.#lastLayer);
    const ffn = this.#spec.layers[next ?? -1]?.ffn;
    if (next === undefined || ffn?.kind !== 'moe' || this.#tokens > guessedTokens) return undefined;
    if (guessIds === undefined || guessWeights === undefined) return undefined;
    return this.#guess.rank(next, guessIds, guessWeights, this.#tokens * ffn.numExpertsPerTok);
  }

  submitExperts(assignment: LayerAssignment): void {
    asDeviceError(() => this.#live().submitExperts(this.#plans.encode(assignment)));
  }

  submitPrefetch(layer: number, expert: number, slot: number): void {
    asDeviceError(() => this.#live().submitPrefetch(layer, expert, slot));
  }

  gpuGraphs(): GpuGraphs {
    return asDeviceError(() => this.#live().gpuGraphs());
  }

  completedTransfers(): readonly number[] {
    return this.#options.gpu === 'off' ? [] : this.#live().completedTransfers();
  }

  routing(layer: number): LayerRouting {
    const views = this.#loaded();
    const ffn = this.#spec.layers[layer]?.ffn;
    if (ffn?.kind !== 'moe') throw new DeviceError(`Layer ${layer} has no router`);
    const topK = ffn.numExpertsPerTok;
    const first = layer * this.#options.maxStepTokens * views.maxTopK;
    const end = first + this.#tokens * topK;
    return {
      tokens: this.#tokens,
      topK,
      topkIds: views.topkIds.subarray(first, end),
      topkWeights: views.topkWeights.subarray(first, end),
    };
  }

  runLogits(candidates: number): LogitsResult {
    const status = this.#run((native) => native.submitLogits(candidates));
    const rows = this.#logitRows;
    const { vocabSize } = this.#spec;
    const { logits, candidateIds: ids, candidateLogits } = this.#loaded();
    const result = { status, rows, logits: logits.subarray(0, rows * vocabSize) };
    // A GPU's kernels look for none.
    if (candidates === 0 || isGpuBackend(this.#options.gpu)) return result;
    const count = Math.min(candidates, vocabSize);
    return { ...result, candidates: { count, ids, logits: candidateLogits } };
  }

  observations(): readonly LayerObservation[] {
    this.#live().drain();
    const { observations } = this.#loaded();
    const columns = OBSERVATION_HEAD + this.#options.units;
    return this.#moeLayers.map((layer) => {
      const row = observations.subarray(layer * columns, (layer + 1) * columns);
      const at = (index: number) => row[index] ?? 0;
      return {
        layer,
        attentionUs: at(0),
        gpuExpertsUs: at(1),
        transferUs: at(2),
        transferBytes: at(3),
        makespanUs: at(4),
        sharedExpertUs: at(5),
        unitBusyUs: row.slice(OBSERVATION_HEAD),
      };
    });
  }

  opTimesUs(): Float64Array {
    const { opTimes } = this.#loaded();
    const threads = opTimes.length / TIMED_OPS.length;
    this.#opTimesUs.fill(0);
    opTimes.forEach((timeUs, at) => {
      const op = at % TIMED_OPS.length;
      this.#opTimesUs[op] = (this.#opTimesUs[op] ?? 0) + timeUs / threads;
    });
    return this.#opTimesUs;
  }

  takeTraceEvents(): readonly DeviceTraceEvent[] {
    return readTraceEvents(this.#live().takeTraceEvents(), this.#options.units);
  }

  setTracing(on: boolean): void {
    this.#live().setTracing(on);
  }

  dispose(): void {
    this.#native?.dispose();
    this.#native = undefined;
    this.#views = undefined;
  }

  #run(submit: (native: NativeDevice) => number): StepStatus {
    const native = this.#live();
    return asDeviceError(() => (native.wait(submit(native)) === 0 ? 'done' : 'aborted'));
  }

  #live(): NativeDevice {
    if (this.#native === undefined) throw new DisposedError('The device');
    return this.#native;
  }

  #loaded(): NativeLoadResult {
    if (this.#views === undefined) throw new DeviceError('The device has no weights yet');
    return this.#views;
  }
}

function infoOf(options: NativeDeviceOptions, isa: string): DeviceInfo {
  const { units, threadsPerUnit, tpDegree, gpu, transferBandwidthGBs } = options;
  return {
    units,
    threadsPerUnit,
    tpDegree,
    ndpGroups: Math.ceil(units / tpDegree),
    gpu,
    expertSlots: 0,
    expertBytes: 0,
    transferBandwidthGBs: transferBandwidthGBs > 0 ? transferBandwidthGBs : Number.POSITIVE_INFINITY,
    isa,
  };
}
