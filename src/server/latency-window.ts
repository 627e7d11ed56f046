/** The latest times to a first token, for /v1/stats. Fed by app.ts at the end of each request. */
import { percentile } from '../trace/stats.js';

const KEPT = 64;

export class LatencyWindow {
  readonly #timesMs: number[] = [];

  add(timeMs: number): void {
    this.#timesMs.push(timeMs);
    if (this.#timesMs.length > KEPT) this.#timesMs.shift();
  }

  /** Null before the first. */
  get median(): number | null {
    return this.#timesMs.length === 0 ? null : percentile(this.#timesMs, 0.5);
  }
}
