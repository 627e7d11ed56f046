/**
 * What the engine reports: the result of a request and the plan of a loaded model. Plain data that crosses from the
 * worker to the main thread; llm.ts re-exports the types. No computation lives here.
 */

import type { ChatAnswer } from '../answer/chat-answer.js';
import type { DeviceInfo, TimedOp } from '../device/device.js';
import type { ReasoningStyle } from '../model/reasoning-style.js';
import type { ToolCallStyle } from '../model/tool-call-style.js';
import type { PlacedBytes } from '../placement/placement.js';
import type { TraceSpan } from '../trace/chrome.js';

export type { PlacedBytes };

/** Why generation ended: an end-of-text token, a stop text, maxTokens, the context's end, or the reader left. */
export type FinishReason = 'eos' | 'stop' | 'length' | 'context' | 'cancelled';

export type Usage = {
  promptTokens: number;
  completionTokens: number;
  totalTokens: number;
  /** Prompt tokens whose KV was already there. */
  cachedPromptTokens: number;
};

/** Wall-clock times of one request. Rates are NaN-free: 0 where nothing was computed. */
export type Timings = {
  /** From the request's arrival in the engine to its first computed step. */
  queueMs: number;
  /** From the request's arrival to its first token (time to first token). */
  timeToFirstTokenMs: number;
  prefillMs: number;
  decodeMs: number;
  totalMs: number;
  prefillTokensPerSecond: number;
  decodeTokensPerSecond: number;
  /** Between consecutive tokens of the decode. */
  perTokenMs: { p50: number; p95: number };
};

/** Experts of all steps that this request took part in (shared with the requests beside it). */
export type ExpertStats = {
  /** (layer, expert) uses by any token of a step. */
  activated: number;
  onGpu: number;
  onNdp: number;
  /** GPU uses that found the expert resident, and those that had to wait for a transfer. */
  hits: number;
  misses: number;
  /** Experts copied ahead of need, and how many of them were used before they were evicted. */
  prefetched: number;
  prefetchUsed: number;
  evictions: number;
  /** Uses in layers that the lookahead had guessed, and those that were among its guesses (prefetch 'lookahead'). */
  guessable: number;
  guessed: number;
  bytesMoved: number;
};

/** Milliseconds that a compute thread spent on each op, mean of the threads; zeros in simulation. */
export type OpTimesMs = Record<TimedOp, number>;

/** Busy times over all steps that this request took part in. */
export type DeviceStats = {
  gpuBusyMs: number;
  /** From the start of each layer's attention to its routing, on whichever device runs it. */
  attentionMs: number;
  transferBusyMs: number;
  /** Per NDP unit, on experts. */
  unitBusyMs: number[];
  /** By op, over all threads of units and host GPU. */
  opMs: OpTimesMs;
  /** Largest unit busy time over the mean; 1 is even. */
  imbalance: number;
  /** Time of the planning (router grouping, scheduler, cache, prefetcher) in TypeScript. */
  scheduleMs: number;
  /** Wall time of the steps. */
  stepsMs: number;
  steps: number;
};

/** One token under the model's softmax, before temperature and penalties. */
export type ScoredToken = {
  tokenId: number;
  logprob: number;
  /** Bytes of the token's text; several tokens may form one character. */
  bytes: number[];
};

/** A generated token and the likeliest ones in its place. */
export type TokenLogprob = ScoredToken & { top: ScoredToken[] };

/** Experts of each computed token: `ids[(token * layers + layer) * topK + k]`, ascending by id inside a token. */
export type RoutingRecord = {
  numExperts: number;
  topK: number;
  /** Model layers that route, in order. */
  layers: number[];
  /** Tokens recorded, the first `promptTokens` of them from the prompt. */
  tokens: number;
  promptTokens: number;
  ids: Uint16Array;
};

export type GenerateResult = {
  text: string;
  /** Of a chat: the text without the marks of the model. */
  answer?: ChatAnswer;
  tokenIds: number[];
  finishReason: FinishReason;
  /** The seed that sampling used. */
  seed: number;
  usage: Usage;
  timings: Timings;
  experts: ExpertStats;
  devices: DeviceStats;
  /** With `logprobs`: one entry per generated token. */
  logprobs?: TokenLogprob[];
  /** With `promptLogprobs`: one entry per prompt token but the first. */
  promptLogprobs?: TokenLogprob[];
  /** With `captureLogits`: one row of the vocabulary per generated token. */
  logits?: { rows: number; vocabSize: number; values: Float32Array };
  /** With `recordRouting`. */
  routing?: RoutingRecord;
  /** With `trace`: spans of the lanes "engine", "gpu", "transfer", "unit 0", ... */
  trace?: TraceSpan[];
};

/** What is placed where, and why. */
export type PlanReport = {
  architecture: string;
  layers: number;
  moeLayers: number;
  numExperts: number;
  numExpertsPerTok: number;
  units: number;
  threadsPerUnit: number;
  tpDegree: number;
  ndpGroups: number;
  gpu: DeviceInfo['gpu'];
  isa: string;
  kvDtype: string;
  maxContext: number;
  /** Most sequences of one step. */
  maxSequences: number;
  /** How the model writes tool calls; undefined where its chat template takes no tools. */
  toolCalls: ToolCallStyle | undefined;
  /** How the model sets reasoning apart from its answers; undefined where its chat template knows none. */
  reasoning: ReasoningStyle | undefined;
  policy: string;
  prefetch: string;
  cachePolicy: string;
  memory: PlacedBytes[];
  /** VRAM slots for experts, and the (layer, expert) pairs that are resident now. */
  expertSlots: number;
  expertBytes: number;
  residents: { layer: number; expert: number }[];
  /** One sentence per decision. */
  reasons: string[];
  /** What was asked for and is not so: experts that do not fit the VRAM, a GPU that failed. */
  warnings: string[];
};
