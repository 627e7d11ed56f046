/**
 * `nearmoe serve`: loads a model and answers HTTP requests until Ctrl-C or SIGTERM, then lets what runs come to its
 * end. A second Ctrl-C ends it at once. Called by main.ts; the server itself is src/server.
 */
import path from 'node:path';
import type { Command } from 'commander';
import { OptionError } from '../errors.js';
import type { Model } from '../llm.js';
import { createServer, type ServerOptions } from '../server/index.js';
import { measureReadBandwidth, readBufferBytes } from './bench/machine.js';
import type { CliContext } from './context.js';
import { addLoadFlags, collect, type LoadFlags, loadOptions, numeric } from './flags.js';
import { errorText, note } from './report.js';
import { loadedLines, withModel } from './with-model.js';

type ServeFlags = LoadFlags & {
  host: string;
  port: number;
  modelName?: string;
  apiKey?: string[];
  allowedHost?: string[];
  maxSequences?: number;
  kvTokens?: number;
  maxBody?: number;
  maxConcurrent?: number;
  maxQueued?: number;
  maxPerClient?: number;
  queueTimeout?: number;
  requestTimeout?: number;
  heartbeat?: number;
  drainTimeout?: number;
  measureBandwidth?: boolean;
  dashboard: boolean;
};

/** Keys may come from here too, separated by commas: a command line can be read by others. */
const KEYS_VARIABLE = 'NEARMOE_API_KEYS';
const INTERRUPTED = 130;

/** Declares the command. */
export function addServeCommand(
  program: Command,
  context: CliContext,
  finish: (status: number) => void,
): void {
  const serve = program.command('serve').description('answer HTTP requests, OpenAI-compatible');
  addLoadFlags(serve)
    .option('--max-sequences <n>', 'requests computed in one step (default: 16)', numeric('maxSequences'))
    .option('--kv-tokens <n>', 'tokens of KV cache for all requests', numeric('kvTokens'))
    .optionsGroup('Server:')
    .option('--host <address>', 'where to listen', '127.0.0.1')
    .option('--port <n>', '0 takes a free one', numeric('port'), 8080)
    .option('--model-name <name>', "the model's name for clients (default: its folder's)")
    .option('--api-key <key>', `a key of which requests must show one (also: ${KEYS_VARIABLE})`, collect)
    .option('--allowed-host <name>', 'a name that the Host header may have', collect)
    .option('--max-body <bytes>', 'largest body of a request', numeric('maxBodyBytes'))
    .option('--max-concurrent <n>', 'answers computed at a time', numeric('maxConcurrent'))
    .option('--max-queued <n>', 'requests that wait; more get 503', numeric('maxQueued'))
    .option('--max-per-client <n>', 'requests of one client at a time; more get 429', numeric('maxPerClient'))
    .option('--queue-timeout <ms>', 'longest wait for a place', numeric('queueTimeoutMs'))
    .option('--request-timeout <ms>', 'longest computation of a request', numeric('requestTimeoutMs'))
    .option('--heartbeat <ms>', 'a silent stream sends a comment after this time', numeric('heartbeatMs'))
    .option('--drain-timeout <ms>', 'longest wait for requests when ending', numeric('drainTimeoutMs'))
    .option('--measure-bandwidth', "measure the machine's read bandwidth first, to tell the share in use")
    .option('--no-dashboard', 'offer no page at /')
    .action(async (flags: ServeFlags) => finish(await serveCommand(flags, context)));
}

async function serveCommand(flags: ServeFlags, context: CliContext): Promise<number> {
  if (!Number.isInteger(flags.port) || flags.port < 0 || flags.port > 65535) {
    throw new OptionError('port', 'an integer from 0 to 65535', flags.port);
  }
  const { maxSequences, kvTokens } = flags;
  const load = { ...loadOptions(flags), maxSequences, kvTokens };
  return withModel(context, load, async (model, loadMs) => {
    const readBandwidthGBs = flags.measureBandwidth ? readBandwidth(model, flags) : undefined;
    const server = createServer(model, serverOptions(flags, load.model, readBandwidthGBs, context));
    const { url } = await server.listen({ host: flags.host, port: flags.port });
    for (const line of loadedLines(model, loadMs, flags)) note(context, line);
    context.stdout.write(`listening on ${url}\n`);
    const status = await ended(context);
    note(context, 'ending: requests under way are finished first; Ctrl-C ends at once');
    const release = context.onInterrupt(() => context.exit(INTERRUPTED));
    await server.close();
    release();
    return status;
  });
}

/** With the threads that the model computes with, which sleep meanwhile. */
function readBandwidth({ info }: Model, flags: ServeFlags): number {
  return measureReadBandwidth({
    threads: info.units * info.threadsPerUnit,
    pinThreads: flags.pin,
    bufferBytes: readBufferBytes(),
    isa: info.isa,
  });
}

/** Resolves to the exit status at the first signal to end. */
function ended(context: CliContext): Promise<number> {
  return new Promise((resolve) => {
    const releases = [context.onInterrupt(() => end(INTERRUPTED)), context.onTerminate(() => end(0))];
    const end = (status: number) => {
      for (const release of releases) release();
      resolve(status);
    };
  });
}

function serverOptions(
  flags: ServeFlags,
  model: string,
  readBandwidthGBs: number | undefined,
  context: CliContext,
): ServerOptions {
  const fromEnvironment = (context.env[KEYS_VARIABLE] ?? '').split(',').filter((key) => key !== '');
  return {
    modelName: flags.modelName ?? path.basename(path.resolve(model), '.gguf'),
    apiKeys: [...(flags.apiKey ?? []), ...fromEnvironment],
    allowedHosts: flags.allowedHost,
    maxBodyBytes: flags.maxBody,
    maxConcurrent: flags.maxConcurrent,
    maxQueued: flags.maxQueued,
    maxPerClient: flags.maxPerClient,
    queueTimeoutMs: flags.queueTimeout,
    requestTimeoutMs: flags.requestTimeout,
    heartbeatMs: flags.heartbeat,
    drainTimeoutMs: flags.drainTimeout,
    readBandwidthGBs,
    processMetrics: true,
    dashboard: flags.dashboard,
    onError: (error) => context.stderr.write(errorText(error)),
  };
}
