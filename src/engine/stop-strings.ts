/**
 * Looks for stop texts in text that arrives in parts. Text that may be the beginning of a stop text is held back
 * until it is known not to be one. Called by the engine for each sequence that has stop texts.
 */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = '';

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** Takes the next part; gives the text that is certain, and whether a stop text ends it. */
  push(part: string): { text: string; stopped: boolean } {
    const pending = this.#held + part;
    let first = -1;
    for (const stop of this.#stops) {
      const at = pending.indexOf(stop);
      if (at >= 0 && (first < 0 || at < first)) first = at;
    }
    if (first >= 0) {
      this.#held = '';
      return { text: pending.slice(0, first), stopped: true };
    }
    const keep = this.#heldLength(pending);
    this.#held = pending.slice(pending.length - keep);
    return { text: pending.slice(0, pending.length - keep), stopped: false };
  }

  /** The text held back, when generation ended without a stop text. */
  flush(): string {
    const text = this.#held;
    this.#held = '';
    return text;
  }

  /** Length of the longest end of `pending` that begins a stop text. */
  #heldLength(pending: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, pending.length); length > longest; length--) {
        if (pending.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
