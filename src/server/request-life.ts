/**
 * The life of one request: a signal that aborts when its client leaves, its time is over or the server gives up
 * waiting. Made by app.ts for each generating request; the signal's reason says what happened.
 */
import { ApiError, unavailable } from './api-error.js';

/** Not an HTTP status of anybody's answer: the client is gone. nginx writes the same number to its log. */
const CLIENT_LEFT = 499;

export function clientLeft(): ApiError {
  return new ApiError(CLIENT_LEFT, 'The client closed the connection', { code: 'client_left' });
}

export class RequestLife {
  readonly #controller = new AbortController();
  readonly #client: AbortSignal;
  readonly #startMs = performance.now();
  #timer: NodeJS.Timeout | undefined;
  #onClientLeft = () => this.clientLeft();

  constructor(client: AbortSignal) {
    this.#client = client;
    client.addEventListener('abort', this.#onClientLeft, { once: true });
    if (client.aborted) this.clientLeft();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Since the request arrived. */
  get ageMs(): number {
    return performance.now() - this.#startMs;
  }

  clientLeft(): void {
    this.abort(clientLeft());
  }

  /** From now on the request may take this long. */
  limit(timeMs: number): void {
    this.#timer = setTimeout(
      () => this.abort(unavailable(`The request took longer than ${timeMs} ms`, 'request_timeout', 5)),
      timeMs,
    );
  }

  abort(reason: ApiError): void {
    this.#controller.abort(reason);
  }

  /** The request is over: nothing is left behind on the client's signal or the clock. Idempotent. */
  end(): void {
    clearTimeout(this.#timer);
    this.#client.removeEventListener('abort', this.#onClientLeft);
  }
}
