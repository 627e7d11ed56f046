/**
 * Every option of the server: its type, its default, its check. Used by server.ts, which fills the defaults in, and by
 * the serve command. Knows nothing of HTTP.
 */
import { callback, check, flag, integer, number, text } from '../options/checks.js';

export type ServerOptions = {
  /** The name under which the model is offered. Default: its architecture. */
  modelName?: string;
  /** Keys of which requests must show one. Default: none, requests need no key. */
  apiKeys?: readonly string[];
  /** Names that the Host header may have. Default: any with API keys, else only those of this machine itself. */
  allowedHosts?: readonly string[];
  /** Largest body of a request. Default 2 MiB. */
  maxBodyBytes?: number;
  /** Most answers that one request may ask for: prompts x `n`. Default 16. */
  maxChoices?: number;
  /** Answers computed at the same time. Default: the engine's `maxSequences`. */
  maxConcurrent?: number;
  /** Requests that wait for a place; more are refused with 503. Default 256. */
  maxQueued?: number;
  /** Requests that one client (API key, else address) may have at a time; more are refused with 429. Default 64. */
  maxPerClient?: number;
  /** How long a request waits for a place before it is refused with 503. Default 60,000. */
  queueTimeoutMs?: number;
  /** How long a request may be computed. Default 600,000. */
  requestTimeoutMs?: number;
  /** A stream that has nothing to say sends a comment after this time. Default 5,000. */
  heartbeatMs?: number;
  /** How long closing waits for requests under way. Default 30,000. */
  drainTimeoutMs?: number;
  /** The machine's read bandwidth in 1e9 bytes/s, where it was measured: /v1/stats then tells the share that is used. */
  readBandwidthGBs?: number;
  /** Adds figures of the whole process to /metrics; for one server of a process. Default false. */
  processMetrics?: boolean;
  /** Offers a page with chat and live figures at /. Default true. */
  dashboard?: boolean;
  /** Told of errors that are the server's own (status 500). Default: a warning of the process. */
  onError?: (error: unknown) => void;
};

export type ServerSettings = Required<Omit<ServerOptions, 'allowedHosts' | 'readBandwidthGBs'>> &
  Pick<ServerOptions, 'allowedHosts' | 'readBandwidthGBs'>;

export const SERVER_DEFAULTS = {
  maxBodyBytes: 2 * 2 ** 20,
  maxChoices: 16,
  maxQueued: 256,
  maxPerClient: 64,
  queueTimeoutMs: 60_000,
  requestTimeoutMs: 600_000,
  heartbeatMs: 5000,
  drainTimeoutMs: 30_000,
  processMetrics: false,
  dashboard: true,
  onError: (error: unknown) => process.emitWarning(error instanceof Error ? error : String(error)),
} as const;

/** setTimeout takes no longer ones. */
const LONGEST_MS = 2 ** 31 - 1;
const texts = {
  expected: 'a list of non-empty strings',
  holds: (value: unknown) => Array.isArray(value) && value.every((entry) => text.holds(entry)),
};

const checks = {
  modelName: text,
  apiKeys: texts,
  allowedHosts: texts,
  maxBodyBytes: integer(1024),
  maxChoices: integer(1, 4096),
  maxConcurrent: integer(1, 4095),
  maxQueued: integer(0),
  maxPerClient: integer(1),
  queueTimeoutMs: integer(1, LONGEST_MS),
  requestTimeoutMs: integer(1, LONGEST_MS),
  heartbeatMs: integer(1, LONGEST_MS),
  drainTimeoutMs: integer(0, LONGEST_MS),
  readBandwidthGBs: number('a number > 0', (value) => value > 0 && value < Infinity),
  processMetrics: flag,
  dashboard: flag,
  onError: callback,
} satisfies { [Name in keyof Required<ServerOptions>]: unknown };

const THIS_MACHINE = ['localhost', '127.0.0.1', '[::1]'];

/** Checks options and fills in what was not given. Throws OptionError. */
export function resolveServerOptions(
  options: ServerOptions,
  model: { architecture: string; maxSequences: number },
): ServerSettings {
  check(options, checks);
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const apiKeys = options.apiKeys ?? [];
  return {
    ...SERVER_DEFAULTS,
    modelName: model.architecture,
    maxConcurrent: model.maxSequences,
    ...given,
    apiKeys,
    // Without keys a page from anywhere could otherwise reach the server by a name that it resolves to 127.0.0.1.
    allowedHosts: options.allowedHosts ?? (apiKeys.length > 0 ? undefined : THIS_MACHINE),
  };
}
