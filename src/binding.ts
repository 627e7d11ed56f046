/**
 * The whole native surface, typed, and the loading of the addon. Imported by device/native.ts (and by cli/doctor
 * through it); nothing else talks to native code. A failed load says what was looked for and what mends it.
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AddonLoadError } from './errors.js';

export type NativeDeviceOptions = {
  units: number;
  threadsPerUnit: number;
  tpDegree: number;
  gpu: 'off' | 'host' | 'cuda' | 'emulated';
  /** Threads of the host GPU lane (>= 1 with gpu 'host'). */
  gpuThreads: number;
  pinThreads: boolean;
  /** Guess the next MoE layer's experts at each layer (gpu 'host' only). */
  lookahead: boolean;
  /** 0: as fast as memory copies. */
  transferBandwidthGBs: number;
  kvDtype: 'f32' | 'f16' | 'bf16' | 'q8_0';
  /** Most tokens of one step over all sequences. */
  maxStepTokens: number;
  /** Most logits rows of one step. */
  maxLogitRows: number;
  /** Columns at whose multiples matrices may be cut: the coarsest need of the checkpoint's formats, 1 for floats. */
  sliceCols: number;
  /** Address space to reserve for each arena; more than any of them will hold. */
  arenaBytes: number;
  /** Forces an instruction set ("scalar", "avx2", ...); empty: the best one. */
  isa: string;
};

export type NativeCpuInfo = {
  isa: string;
  runnableIsas: string[];
  features: string[];
  /** Vector registers that the operating system saves on a switch ("avx", "avx512", "amx"). */
  savedRegisters: string[];
  logicalCores: number;
  physicalCores: number;
  numaNodes: number;
  hugePages: string;
};

/** Scales of rows whose values are stored as codes (`convertRows`): whole rows of scales, or of blocks of them. */
export type NativeScales = {
  /** 1 + index in ENCODINGS. */
  encoding: number;
  bytes: Uint8Array;
  firstRow: number;
};

/** What to measure by `measureCeiling`: bytes read from memory, or multiply-accumulates on registers. */
export type NativeCeilingOptions = {
  kind: 'read' | 'int8' | 'float';
  threads: number;
  pinThreads: boolean;
  /** Of each variant that is tried. */
  timeMs: number;
  /** Read: far larger than all caches together. */
  bufferBytes: number;
  /** int8, float: the instruction set whose densest multiply-add is measured; 'scalar' has none. */
  isa: string;
};

/** Columns of one row of the load table (Float64Array). */
/** role, layer, expert or head, file, offsetBytes, dtype, rows, cols, quantised dtype or -1, row stride, transposed;
 * then of tensors whose values lie in two: encoding, first row, rows of the tensor, file and offset of the scales;
 * of transposed parts: values in a whole row of the tensor, 0 where all are the weight's; neighbouring rows of a run, and
 * number of the transform */
export const LOAD_COLUMNS = 19;

/** Columns of one entry of the plan (Int32Array), after a head of [layer, count]. */
export const PLAN_COLUMNS = 4; // expert, place, slot, transfer

export type NativeLoadResult = {
  denseBytes: number;
  expertBytes: number;
  expertSlabBytes: number;
  /** Most experts per token of any layer: the row length unit of the routing views. */
  maxTopK: number;
  /** Views on native memory, detached by dispose. Layer l's routing starts at l * maxStepTokens * maxTopK. */
  topkIds: Int32Array;
  topkWeights: Float32Array;
  /** Most tokens of a step for which the next layer's experts are guessed; 0: none are. */
  guessedTokens: number;
  /** [guessedTokens * topK] of the layer guessed last, where guessedTokens > 0. */
  guessIds?: Int32Array;
  guessWeights?: Float32Array;
  /** [maxLogitRows * vocabSize] */
  logits: Float32Array;
  /** [maxLogitRows * MAX_CANDIDATES], as far as submitLogits asked for them; never filled by a GPU. */
  candidateIds: Int32Array;
  candidateLogits: Float32Array;
  /** [layers][OBSERVATION_HEAD + units] */
  observations: Float64Array;
  /** [threads][timedOps]: microseconds of the last step, as of the last drain. */
  opTimes: Float64Array;
};

/** Columns of a layer's observations before the units' busy times. */
export const OBSERVATION_HEAD = 6; // attentionUs, gpuExpertsUs, transferUs, transferBytes, makespanUs, sharedExpertUs

/** Columns of a trace event: lane, kind, layer, startUs, endUs. */
export const TRACE_COLUMNS = 5;

/** Where a file holds one part of the packed weights. */
export type ArenaSegment = { offsetBytes: number; sizeBytes: number; checksum: string };

export interface NativeDevice {
  /** Maps a file for loading; returns its index. */
  openFile(path: string): number;
  /** Opens a made-up checkpoint of `bytes` random values in memory; returns its index. */
  openSynthetic(bytes: number): number;
  /** Packs `count` weights of the table into the arenas; blocks. Throws ERR_WEIGHT_VALUE with `row` on NaN or Inf. */
  loadWeights(table: Float64Array, count: number): void;
  /** Sizes and checksums of the packed weights: one part for each unit, then one of a host GPU lane. */
  arenaSegments(): { sizeBytes: number; checksum: string }[];
  /** Writes bytes [beginBytes, beginBytes + sizeBytes) of a part to an existing file. Throws ERR_IO. */
  writeArena(path: string, arena: number, beginBytes: number, sizeBytes: number, offsetBytes: number): void;
  /**
   * Takes the parts from a file, without copying; before loadWeights, which then only learns places. Throws
   * ERR_WEIGHT_VALUE where a checksum is another and ERR_IO, the device being as it was.
   */
  mapArenas(path: string, segments: readonly ArenaSegment[]): void;
  /** All weights are there: unmaps files, allocates activations. Throws ERR_WEIGHT_MISSING. */
  finishLoad(): NativeLoadResult;
  /** Returns the cache's bytes. */
  allocateKv(numBlocks: number): number;
  /** Slots for the states of sequences; returns their bytes. */
  allocateStates(slots: number): number;
  /** Returns how many there are: fewer where GPU memory ends. */
  allocateExpertSlots(count: number): number;
  /** Wire form: see device/step-wire.ts. */
  beginStep(step: Int32Array, ropes: Float32Array): void;
  submitLayers(first: number, end: number): number;
  submitAttention(layer: number): number;
  submitExperts(plan: Int32Array): number;
  submitPrefetch(layer: number, expert: number, slot: number): void;
  /** `candidates`: how many of each row's largest logits are wanted, up to MAX_CANDIDATES. */
  submitLogits(candidates: number): number;
  /** Blocks until the ticket's work is done, working along. 0 done, 1 aborted. */
  wait(ticket: number): number;
  /** Blocks until everything submitted is done and brings the observations up to date. */
  drain(): void;
  /** Slots whose transfer completed since the last call. */
  completedTransfers(): number[];
  /** How decode reaches the GPU. */
  gpuGraphs(): GpuGraphs;
  takeTraceEvents(): Float64Array;
  setTracing(on: boolean): void;
  /** Microseconds an expert takes on the GPU lane or on its NDP group with `tokens` tokens. Needs a GPU lane. */
  measureExperts(onGpu: boolean, tokens: number): number;
  /** Microseconds of one expert's transfer. Needs VRAM slots; leaves slot 0 empty. */
  measureTransfer(): number;
  isa(): string;
  /** Idempotent. Detaches all views. */
  dispose(): void;
}

/** A GPU as its driver describes it. */
/** `replays`: CUDA graphs launched so far; `held`: ready to be launched again; `off`: why there are none, else "". */
export type GpuGraphs = { replays: number; held: number; off: string };

export type NativeGpu = {
  name: string;
  /** 10 * major + minor */
  computeCapability: number;
  multiprocessors: number;
  /** CPU and GPU share their memory: transfers hand over pointers. */
  unifiedMemory: boolean;
  /** CUDA version that the driver supports, 1000 * major + 10 * minor. */
  driverVersion: number;
  totalBytes: number;
  freeBytes: number;
  /** Nominal; 0 where unknown. */
  bandwidthGBs: number;
};

export type NativeDtype = { name: string; blockCols: number; blockBytes: number; sliceCols: number };

export interface NativeBinding {
  version(): string;
  roles(): string[];
  timedOps(): string[];
  dtypes(): NativeDtype[];
  cpuInfo(): NativeCpuInfo;
  /** Fingerprint of how every format is packed: packed weights of another one are of no use here. */
  packedLayout(): string;
  /** Monotonic microseconds, the clock of observations and trace events. */
  nowUs(): number;
  /** Rate in 1e9 bytes or multiply-accumulates per second, all threads together; blocks. */
  measureCeiling(options: NativeCeilingOptions): number;
  /**
   * Values from one stored layout to another, dtypes by number; blocks. With `scales`, `bytes` are codes: `firstRow` is
   * their first row's place behind the first one of the scales. Throws ERR_WEIGHT_VALUE where a value is NaN, infinite
   * or too large for the new format.
   */
  convertRows(
    from: number,
    bytes: Uint8Array,
    to: number,
    rows: number,
    cols: number,
    threads: number,
    scales?: NativeScales,
  ): Uint8Array;
  /** The backend's usable devices, at least one. Throws ERR_GPU that says what is missing and what mends it. */
  probeGpu(backend: 'cuda' | 'emulated'): { devices: NativeGpu[]; build: string };
  /** `cancelFlags` is backed by a SharedArrayBuffer; native keeps it alive until dispose. */
  createDevice(spec: object, options: NativeDeviceOptions, cancelFlags: Int32Array): NativeDevice;
}

const packageRoot = join(dirname(fileURLToPath(import.meta.url)), '..');

function load(): NativeBinding {
  const require = createRequire(import.meta.url);
  try {
    const nodeGypBuild = require('node-gyp-build') as (dir: string) => NativeBinding;
    return nodeGypBuild(packageRoot);
  } catch (cause) {
    throw new AddonLoadError(packageRoot, cause);
  }
}

let loaded: NativeBinding | undefined;

/** The addon, loaded at the first call. Throws AddonLoadError. */
export function binding(): NativeBinding {
  loaded ??= load();
  return loaded;
}
