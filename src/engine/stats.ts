/**
 * What model.stats() tells of a running engine. Plain data that crosses from the worker; made by telemetry.ts and
 * engine.ts, read by the server's metrics and dashboard.
 */
import type { TraceSpan } from '../trace/chrome.js';
import type { DeviceStats, ExpertStats } from './result.js';

/** Sums over steps; `devices.steps` counts them. */
export type StepTotals = {
  /** Sequences of each step, added up: divided by the steps, the mean batch size. */
  sequences: number;
  /** Tokens of prompts that were computed (not those found in the prefix cache). */
  promptTokens: number;
  generatedTokens: number;
  devices: DeviceStats;
  experts: ExpertStats;
};

/** What the lanes did in one step. */
export type StepTimeline = {
  startUs: number;
  endUs: number;
  sequences: number;
  spans: TraceSpan[];
};

export type EngineStats = {
  /** Since the model was loaded. */
  upMs: number;
  requests: { running: number; waiting: number };
  /** Blocks of the KV cache that nobody uses include those kept for their contents. */
  kvBlocks: { total: number; free: number; tokensPerBlock: number };
  total: StepTotals;
  /** The last seconds: `windowMs` until now. */
  recent: StepTotals & { windowMs: number };
  /** batchSizes[n]: steps with n sequences. */
  batchSizes: number[];
  /** Model layers that route, in order. */
  moeLayers: number[];
  numExperts: number;
  /** [moeLayers * numExperts] tokens routed to each expert since the model was loaded. */
  expertTokens: Float64Array;
  /** Experts in VRAM now. */
  residents: { layer: number; expert: number }[];
  /** Steps recorded after the last call that asked for them, earliest first. */
  timeline: StepTimeline[];
};
