/**
 * The protocol between the main thread (worker-client.ts) and the engine's worker (worker.ts): plain data only.
 * Each request has an id and a slot of the cancel flags, an Int32Array on shared memory that native code reads
 * between layers. Slot 0 belongs to the engine as a whole (loading, dispose).
 */
import type { SerializedError } from '../errors.js';
import type {
  ChatMessage,
  ChatTemplateOptions,
  EngineOptions,
  GenerateProgress,
  LoadProgress,
  RequestOptions,
} from '../options.js';
import type { ModelFacts } from './model-facts.js';
import type { GenerateResult, PlanReport, TokenLogprob } from './result.js';
import type { EngineStats } from './stats.js';

/** Slots of the cancel flags: 1 for the engine, the rest for requests that are not finished. */
export const CANCEL_SLOTS = 4096;
export const ENGINE_SLOT = 0;

/** Parts of text that may be on their way to a reader before its sequence pauses. */
export const UNREAD_PARTS = 64;
/** Read parts are acknowledged in lots of this many. */
export const ACKNOWLEDGE_EVERY = 16;

export type WorkerInput = { options: EngineOptions; cancelFlags: Int32Array };

export type PromptMessage =
  | { kind: 'text'; text: string }
  | { kind: 'ids'; ids: Int32Array }
  | { kind: 'chat'; messages: ChatMessage[]; template: ChatTemplateOptions };

export type ToWorker =
  | { type: 'generate'; id: number; slot: number; prompt: PromptMessage; options: RequestOptions }
  | { type: 'cancel'; id: number }
  | { type: 'acknowledge'; id: number; parts: number }
  | { type: 'plan'; id: number }
  | { type: 'inspect'; id: number }
  | { type: 'stats'; id: number; timeline: boolean }
  | { type: 'dispose' };

/** To the child process of `isolate: 'process'`, which hands on what is the worker's. */
export type ToProcess =
  | ToWorker
  | { type: 'start'; options: EngineOptions }
  | { type: 'flag'; slot: number; value: 0 | 1 };

/** What one step gave one request; `logprobs`, where asked for, of the tokens whose text begins in `text`. */
export type StepPart = {
  id: number;
  text: string;
  progress: GenerateProgress | undefined;
  logprobs?: TokenLogprob[];
};

export type FromWorker =
  | { type: 'load-progress'; progress: LoadProgress }
  | { type: 'loaded'; report: PlanReport }
  | { type: 'load-failed'; error: SerializedError }
  /** A chat's answer begins inside of its reasoning: the prompt has opened it. */
  | { type: 'in-reasoning'; id: number }
  | { type: 'step'; parts: StepPart[] }
  | { type: 'finished'; id: number; result: GenerateResult }
  | { type: 'failed'; id: number; error: SerializedError }
  | { type: 'planned'; id: number; report: PlanReport }
  | { type: 'inspected'; id: number; facts: ModelFacts }
  | { type: 'counted'; id: number; stats: EngineStats }
  | { type: 'disposed' };
