/**
 * What engines tell on node:diagnostics_channel, for logs and tracing without a wrapper around every call. Published on
 * the caller's thread by worker-client.ts; adapters/opentelemetry.ts makes spans of it. Costs nothing without a
 * subscriber.
 */
import { type Channel, channel } from 'node:diagnostics_channel';
import type { EngineOptions, RequestOptions } from '../options.js';
import type { GenerateResult } from './result.js';

/** `nearmoe.request.start`, in the caller's context; the same object comes with `end` and `error`. */
export type RequestEvent = {
  /** One object for each request, to keep things by. */
  request: object;
  operation: 'chat' | 'text_completion';
  model: string;
  options: RequestOptions;
  /** With `nearmoe.request.end`. */
  result?: GenerateResult;
  /** With `nearmoe.request.error`: also requests that were aborted. */
  error?: unknown;
};

/** `nearmoe.engine.start` (an engine began to load), `.ready`, `.end`; `error` where it crashed. */
export type EngineEvent = { model: string; pid: number; options: EngineOptions; error?: Error };

export const CHANNELS = {
  requestStart: channel('nearmoe.request.start'),
  requestEnd: channel('nearmoe.request.end'),
  requestError: channel('nearmoe.request.error'),
  engineStart: channel('nearmoe.engine.start'),
  engineReady: channel('nearmoe.engine.ready'),
  engineEnd: channel('nearmoe.engine.end'),
} as const;

/** Publishes what `event` makes, which is called only where somebody listens. */
export function publish<Event>(to: Channel, event: () => Event): void {
  if (to.hasSubscribers) to.publish(event());
}

/** Tells of a request from now to its end. */
export function traceRequest(event: RequestEvent, result: Promise<GenerateResult>): void {
  const { requestStart, requestEnd, requestError } = CHANNELS;
  publish(requestStart, () => event);
  result.then(
    (value) => publish(requestEnd, () => ({ ...event, result: value })),
    (error: unknown) => publish(requestError, () => ({ ...event, error })),
  );
}
