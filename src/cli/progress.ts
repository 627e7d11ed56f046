/**
 * One line of progress that redraws itself, on a terminal only: load, then prefill. Called by the commands; a
 * stream that is no terminal gets nothing at all.
 */
import type { TextOutput } from './context.js';

const REDRAW_MS = 50;
const BAR_CELLS = 24;

export class ProgressLine {
  #stream: TextOutput;
  #drawnAt = -Infinity;
  #drawn = false;

  constructor(stream: TextOutput) {
    this.#stream = stream;
  }

  /** Redraws at most every 50 ms, and always when `done` reaches `total`. `detail` stands right of the bar. */
  update(label: string, done: number, total: number, detail: string): void {
    if (!this.#stream.isTTY) return;
    const now = performance.now();
    if (now - this.#drawnAt < REDRAW_MS && done < total) return;
    this.#drawnAt = now;
    this.#drawn = true;
    const share = total > 0 ? Math.min(done / total, 1) : 0;
    const filled = Math.round(share * BAR_CELLS);
    const bar = '#'.repeat(filled) + '.'.repeat(BAR_CELLS - filled);
    const percent = `${Math.floor(share * 100)}%`.padStart(4);
    const line = `${label.padEnd(8)} [${bar}] ${percent}  ${detail}`;
    this.#stream.write(`\r\x1b[2K${line.slice(0, (this.#stream.columns || 80) - 1)}`);
  }

  /** Takes the line away, so that what follows starts on a clean one. */
  clear(): void {
    if (this.#drawn) this.#stream.write('\r\x1b[2K');
    this.#drawn = false;
    this.#drawnAt = -Infinity;
  }
}
