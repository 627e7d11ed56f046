/**
 * The server of one model: a fetch handler, a Node listener, its own listening socket, and a close that drains. Made by
 * the serve command, or by a program that mounts it in a service of its own. Does not own the model.
 */
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { NearmoeError } from '../errors.js';
import { Admission } from './admission.js';
import { type ServableModel, ServedModel } from './answers.js';
import { unavailable } from './api-error.js';
import { createApp } from './app.js';
import { LatencyWindow } from './latency-window.js';
import { Metrics } from './metrics.js';
import type { RequestLife } from './request-life.js';
import { resolveServerOptions, type ServerOptions, type ServerSettings } from './server-options.js';

/** A client has this long to send its request. */
const REQUEST_RECEIVED_MS = 60_000;
const DEFAULT_PORT = 8080;

export class InferenceServer implements AsyncDisposable {
  /** Answers a web Request: for frameworks that speak fetch, and for tests. */
  readonly fetch: (request: Request) => Promise<Response>;
  /** Answers a request of node:http: `createServer(server.handle)`, or `app.use('/llm', server.handle)` in Express. */
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void;
  #settings: ServerSettings;
  #admission: Admission;
  #lives = new Set<RequestLife>();
  #sockets: Server[] = [];
  #closing: Promise<void> | undefined;

  /** Throws OptionError. */
  constructor(model: ServableModel, options: ServerOptions = {}) {
    this.#settings = resolveServerOptions(options, model.info);
    this.#admission = new Admission(this.#settings);
    const served = new ServedModel(model, this.#settings);
    const app = createApp({
      served,
      settings: this.#settings,
      admission: this.#admission,
      metrics: new Metrics(model, this.#admission, this.#settings.processMetrics),
      latencies: new LatencyWindow(),
      lives: this.#lives,
    });
    this.fetch = async (request) => app.fetch(request);
    this.handle = getRequestListener(app.fetch, { overrideGlobalObjects: false });
  }

  /** Opens a socket, on this machine alone unless told otherwise. Rejects with NearmoeError where that fails. */
  async listen({ host = '127.0.0.1', port = DEFAULT_PORT } = {}): Promise<{ port: number; url: string }> {
    const server = createHttpServer({ requestTimeout: REQUEST_RECEIVED_MS }, this.handle);
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) =>
        reject(
          new NearmoeError('ERR_OPTION', `${host}:${port} cannot be listened on: ${cause.message}`, {
            cause,
          }),
        ),
      );
      server.listen({ host, port }, resolve);
    });
    this.#sockets.push(server);
    const { address, port: bound, family } = server.address() as AddressInfo;
    const name = family === 'IPv6' ? `[${address}]` : address;
    return { port: bound, url: `http://${name}:${bound}` };
  }

  /**
   * Refuses new work, lets what waits and runs come to its end, at most `drainTimeoutMs`, then ends it and closes the
   * sockets. Idempotent. The model stays loaded.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#admission.close();
    const idle = this.#admission.idle();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, this.#settings.drainTimeoutMs);
    });
    await Promise.race([idle, late]);
    clearTimeout(timer);
    for (const life of this.#lives)
      life.abort(unavailable('The server is shutting down', 'shutting_down', 5));
    await idle;
    await Promise.all(this.#sockets.map(closeServer));
  }
}

/** A server of a loaded model; `listen` opens a socket, `handle` and `fetch` mount it elsewhere. Throws OptionError. */
export function createServer(model: ServableModel, options: ServerOptions = {}): InferenceServer {
  return new InferenceServer(model, options);
}

/** Answers that are being sent go out; connections without a request close at once. */
function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
  });
}
