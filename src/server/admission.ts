/**
 * Places for requests: how many are computed at the same time, how many wait, in which order. Clients take turns, so
 * that one with many requests does not hold up the others. Called by generate.ts; knows nothing of HTTP or the engine.
 */
import { ApiError, unavailable } from './api-error.js';

export type AdmissionLimits = {
  maxConcurrent: number;
  maxQueued: number;
  maxPerClient: number;
  queueTimeoutMs: number;
};

type Waiter = { client: string; places: number; admit: () => void };

/** Weight of the latest request in the mean time that requests take. */
const NEWEST_SHARE = 0.2;
const LONGEST_RETRY_SECONDS = 60;

export class Admission {
  readonly #limits: AdmissionLimits;
  /** Waiting requests by client; the map's order is the order in which clients get their turn. */
  readonly #waiting = new Map<string, Waiter[]>();
  readonly #perClient = new Map<string, number>();
  #running = 0;
  #queued = 0;
  #open = 0;
  #closed = false;
  #meanMs = 0;
  #onIdle: (() => void)[] = [];

  constructor(limits: AdmissionLimits) {
    this.#limits = limits;
  }

  /** Places taken. */
  get running(): number {
    return this.#running;
  }

  /** Requests that wait. */
  get queued(): number {
    return this.#queued;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Waits for `places` places and gives the function that frees them, to be called once. Rejects with 429 or 503, or
   * with the signal's reason.
   */
  async enter(client: string, places: number, signal: AbortSignal): Promise<() => void> {
    this.#refuse(client);
    signal.throwIfAborted();
    this.#open++;
    this.#perClient.set(client, (this.#perClient.get(client) ?? 0) + 1);
    try {
      if (this.#queued > 0 || !this.#fits(places)) await this.#wait({ client, places }, signal);
      else this.#running += places;
    } catch (error) {
      this.#leave(client);
      throw error;
    }
    const startMs = performance.now();
    return () => {
      const tookMs = performance.now() - startMs;
      this.#meanMs += (this.#meanMs === 0 ? 1 : NEWEST_SHARE) * (tookMs - this.#meanMs);
      this.#running -= places;
      this.#leave(client);
      this.#admit();
    };
  }

  /** Takes no further requests; those that wait or run go on. */
  close(): void {
    this.#closed = true;
  }

  /** Resolves when no request waits or runs. */
  idle(): Promise<void> {
    return this.#open === 0 ? Promise.resolve() : new Promise((resolve) => this.#onIdle.push(resolve));
  }

  #refuse(client: string): void {
    if (this.#closed) throw unavailable('The server is shutting down', 'shutting_down', 5);
    const { maxPerClient, maxQueued, maxConcurrent } = this.#limits;
    if ((this.#perClient.get(client) ?? 0) >= maxPerClient) {
      throw new ApiError(429, `At most ${maxPerClient} requests of one client at a time`, {
        code: 'too_many_requests',
        retryAfterSeconds: this.#retrySeconds(),
      });
    }
    if (this.#queued >= maxQueued && (this.#queued > 0 || this.#running >= maxConcurrent)) {
      throw unavailable('All places are taken and the queue is full', 'queue_full', this.#retrySeconds());
    }
  }

  #wait({ client, places }: Omit<Waiter, 'admit'>, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const finish = (settle: () => void) => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        settle();
      };
      const give = (error: unknown) => {
        this.#remove(waiter);
        finish(() => reject(error));
        // The one that leaves may have been too large for the free places, and those behind it are not.
        this.#admit();
      };
      const onAbort = () => give(signal.reason);
      const waiter: Waiter = { client, places, admit: () => finish(resolve) };
      const timer = setTimeout(
        () => give(unavailable('No place became free in time', 'queue_timeout', this.#retrySeconds())),
        this.#limits.queueTimeoutMs,
      );
      signal.addEventListener('abort', onAbort, { once: true });
      const own = this.#waiting.get(client);
      if (own === undefined) this.#waiting.set(client, [waiter]);
      else own.push(waiter);
      this.#queued++;
      this.#admit();
    });
  }

  /** Lets in who has the turn, as long as there is room; a request for many places is not overtaken for ever. */
  #admit(): void {
    for (;;) {
      const [client, own] = this.#waiting.entries().next().value ?? [];
      const waiter = own?.[0];
      if (client === undefined || waiter === undefined || !this.#fits(waiter.places)) return;
      this.#remove(waiter);
      const rest = this.#waiting.get(client);
      if (rest !== undefined) {
        this.#waiting.delete(client);
        this.#waiting.set(client, rest);
      }
      this.#running += waiter.places;
      waiter.admit();
    }
  }

  #remove(waiter: Waiter): void {
    const rest = (this.#waiting.get(waiter.client) ?? []).filter((other) => other !== waiter);
    if (rest.length > 0) this.#waiting.set(waiter.client, rest);
    else this.#waiting.delete(waiter.client);
    this.#queued--;
  }

  /** A request for more places than there are runs alone. */
  #fits(places: number): boolean {
    return this.#running === 0 || this.#running + places <= this.#limits.maxConcurrent;
  }

  #leave(client: string): void {
    const left = (this.#perClient.get(client) ?? 1) - 1;
    if (left > 0) this.#perClient.set(client, left);
    else this.#perClient.delete(client);
    this.#open--;
    if (this.#open === 0) for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  /** About when a place will be free, from how long requests took lately. */
  #retrySeconds(): number {
    const rounds = (this.#queued + 1) / this.#limits.maxConcurrent;
    return Math.min(Math.max(Math.ceil((rounds * this.#meanMs) / 1000), 1), LONGEST_RETRY_SECONDS);
  }
}
