/**
 * The seam between decisions (TypeScript) and computation: native.ts runs it on this machine, simulated.ts in
 * virtual time. Everything above it is the same production code in both cases.
 *
 * Called by engine/forward.ts only, from the engine's worker thread. All calls are synchronous.
 */

/** Where one active expert of a layer runs. Places: GPU_PLACE, or the NDP group's number >= 0. */
export const GPU_PLACE = -1;

export type DeviceInfo = {
  units: number;
  threadsPerUnit: number;
  /** Units an expert is cut over. */
  tpDegree: number;
  /** ceil(units / tpDegree): NDP groups that take experts in turn. */
  ndpGroups: number;
  /** 'off': no GPU lane, layers run without a plan. */
  gpu: 'off' | 'host' | 'cuda' | 'emulated' | 'simulated';
  /** VRAM slots for experts, 0 where there is no GPU lane. */
  expertSlots: number;
  /** Bytes of one expert's slab (gate, up and down of all slices). */
  expertBytes: number;
  /** Settable bandwidth of the transfer lane; Infinity = as fast as memory copies. */
  transferBandwidthGBs: number;
  isa: string;
};

/** One sequence's part of a step: `tokenIds.length` consecutive tokens starting at `firstPosition`. */
export type StepSequence = {
  tokenIds: Int32Array;
  firstPosition: number;
  /** KV blocks of the sequence in order, covering firstPosition + tokenIds.length positions. */
  blockIds: readonly number[];
  /** Where layers have states: the slot with the state before these tokens, none at the beginning of the sequence. */
  stateSource?: number;
  /** Where layers have states: the slot that gets the state after these tokens; another one. */
  stateTarget?: number;
  /** How many of the last tokens need logits: 0 (a prefill chunk that is not the last), 1, or more. */
  logitRows: number;
  /** Index into the cancel flags. */
  cancelSlot: number;
  /** Per rope set of the model: inverse frequencies [rotaryDim / 2] and the factor for cos and sin. */
  ropes: readonly { inverseFrequencies: Float32Array; attentionFactor: number }[];
};

export type StepBatch = { sequences: readonly StepSequence[] };

/** Routing of one layer: row t holds token t's experts, ascending by id inside the row, and their weights. */
export type LayerRouting = {
  tokens: number;
  topK: number;
  /** [tokens * topK] */
  topkIds: Int32Array;
  /** [tokens * topK] */
  topkWeights: Float32Array;
};

/** A guess of the experts that a layer will need, likeliest first. */
export type LayerGuess = {
  layer: number;
  count: number;
  /** [count] */
  expertIds: Int32Array;
};

/** What one layer's experts do in this step; entries in ascending expert id, each active expert exactly once. */
export type LayerAssignment = {
  layer: number;
  count: number;
  /** [count] */
  expertIds: Int32Array;
  /** [count] GPU_PLACE or NDP group */
  places: Int32Array;
  /** [count] VRAM slot for experts on the GPU, else -1 */
  slots: Int32Array;
  /** [count] 1: the expert must be copied into its slot before it is computed there */
  transfers: Int32Array;
};

/** Observed times of one layer of the last step, microseconds. */
export type LayerObservation = {
  layer: number;
  /** From the start of attention to the routing result. */
  attentionUs: number;
  /** Busy time of the GPU lane on routed experts, without waiting. */
  gpuExpertsUs: number;
  /** Busy time of each unit on experts. */
  unitBusyUs: Float64Array;
  /** Busy time of the transfer lane and bytes moved since the previous layer's observation. */
  transferUs: number;
  transferBytes: number;
  /** Time of the GPU lane on the shared expert. */
  sharedExpertUs: number;
  /** From the plan's submission until the later of GPU and units was done. */
  makespanUs: number;
};

/** What the time of a compute thread is spent on; numbers and names are those of native/runtime/op_times.h. */
export const TIMED_OPS = [
  'input',
  'qkv',
  'rope',
  'attention',
  'output',
  'router',
  'gateUp',
  'activation',
  'down',
  'combine',
  'lmHead',
  'barrier',
] as const;
export type TimedOp = (typeof TIMED_OPS)[number];

export type DeviceTraceEvent = {
  /** "unit 0", "gpu", "transfer" */
  lane: string;
  /** "attention", "experts", "transfer", "logits", "combine" */
  name: string;
  layer: number;
  startUs: number;
  endUs: number;
};

/** Result of a blocking call: 'aborted' where a cancel flag of the step was set; the step then has no effect. */
export type StepStatus = 'done' | 'aborted';

/** Most candidates of a row. */
export const MAX_CANDIDATES = 64;

/** The `count` largest logits of each row, in falling order, of equal ones the lowest id first. */
export type CandidateRows = {
  count: number;
  /** [rows * MAX_CANDIDATES], row r's from r * MAX_CANDIDATES on. */
  ids: Int32Array;
  logits: Float32Array;
};

/** Rows in order of the sequences' logitRows; valid until the next step. */
export type LogitsResult = {
  status: StepStatus;
  rows: number;
  /** [rows * vocabSize] */
  logits: Float32Array;
  /** Left out where none were asked for, and by devices that find none. */
  candidates?: CandidateRows;
};

export interface Device {
  readonly info: DeviceInfo;
  /** Monotonic clock of the device in microseconds (virtual in simulation). */
  nowUs(): number;
  /** Starts a step: embeds the tokens. */
  beginStep(batch: StepBatch): void;
  /** Starts layers [first, end) without a plan (gpu 'off' only); runLogits waits for them and tells of an abort. */
  submitLayers(first: number, end: number): void;
  /** Runs attention and router of a layer and waits for the routing. Dense layers complete entirely in this call. */
  runAttention(layer: number): StepStatus;
  /** Routing of a MoE layer of this step; views that stay valid until the next beginStep. */
  routing(layer: number): LayerRouting;
  /**
   * What the last runAttention guessed for the MoE layer behind it, from this layer's hidden state; undefined where the
   * device makes no guess. Valid until the next runAttention.
   */
  lookahead(): LayerGuess | undefined;
  /** Starts the layer's experts; returns at once. The next runAttention or runLogits orders itself behind it. */
  submitExperts(assignment: LayerAssignment): void;
  /** Queues a prefetch of an expert into a slot, behind on-demand transfers. */
  submitPrefetch(layer: number, expert: number, slot: number): void;
  /** Slots whose transfer has completed since the last call. */
  completedTransfers(): readonly number[];
  /** Final norm and lm_head; waits. `candidates`: how many of each row's largest are wanted, up to MAX_CANDIDATES. */
  runLogits(candidates: number): LogitsResult;
  /** Observations of the MoE layers of the last completed step. */
  observations(): readonly LayerObservation[];
  /** [TIMED_OPS] time of the last completed step by op, mean of the compute threads; zeros in simulation. */
  opTimesUs(): Float64Array;
  /** Trace events since the last call; empty unless tracing is on. */
  takeTraceEvents(): readonly DeviceTraceEvent[];
  setTracing(on: boolean): void;
  /** Idempotent; drains, joins threads, frees. */
  dispose(): void;
}
