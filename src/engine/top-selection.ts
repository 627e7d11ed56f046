/**
 * The largest values of a row, in falling order, without sorting the row: a heap of the best so far with the worst of
 * them on top. Called by the sampler. Of equal values the lower id comes first.
 */
export class TopSelection {
  /** Ids of the selected values, largest first; the first `count` are valid. */
  ids = new Int32Array(64);
  /** Their values. */
  logits = new Float32Array(64);
  count = 0;

  /** Selects the `count` largest values, or all where the row is shorter. */
  select(row: Float32Array, count: number): void {
    const size = Math.min(count, row.length);
    if (this.ids.length < size) this.ids = new Int32Array(size);
    this.count = size;
    if (size === 0) return;
    for (let id = 0; id < size; id++) this.ids[id] = id;
    for (let at = (size >> 1) - 1; at >= 0; at--) this.#sink(row, at, size);
    let worst = row[this.ids[0] ?? 0] ?? 0;
    for (let id = size; id < row.length; id++) {
      if ((row[id] ?? 0) <= worst) continue;
      this.ids[0] = id;
      this.#sink(row, 0, size);
      worst = row[this.ids[0] ?? 0] ?? 0;
    }
    this.#order(row);
  }

  /** Selects all values >= threshold. */
  selectAbove(row: Float32Array, threshold: number): void {
    this.count = 0;
    for (let id = 0; id < row.length; id++) {
      if ((row[id] ?? 0) < threshold) continue;
      if (this.count === this.ids.length) {
        const wider = new Int32Array(this.count * 2);
        wider.set(this.ids);
        this.ids = wider;
      }
      this.ids[this.count++] = id;
    }
    for (let at = (this.count >> 1) - 1; at >= 0; at--) this.#sink(row, at, this.count);
    this.#order(row);
  }

  /** Heap to falling order. */
  #order(row: Float32Array): void {
    for (let end = this.count - 1; end > 0; end--) {
      const worst = this.ids[0] ?? 0;
      this.ids[0] = this.ids[end] ?? 0;
      this.ids[end] = worst;
      this.#sink(row, 0, end);
    }
    if (this.logits.length < this.ids.length) this.logits = new Float32Array(this.ids.length);
    for (let i = 0; i < this.count; i++) this.logits[i] = row[this.ids[i] ?? 0] ?? 0;
  }

  /** Moves the entry at `at` down until no child is worse. */
  #sink(row: Float32Array, at: number, size: number): void {
    const ids = this.ids;
    const id = ids[at] ?? 0;
    for (let child = 2 * at + 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && isWorse(row, ids[child + 1] ?? 0, ids[child] ?? 0)) child++;
      const childId = ids[child] ?? 0;
      if (!isWorse(row, childId, id)) break;
      ids[at] = childId;
      at = child;
    }
    ids[at] = id;
  }
}

function isWorse(row: Float32Array, a: number, b: number): boolean {
  const valueA = row[a] ?? 0;
  const valueB = row[b] ?? 0;
  return valueA < valueB || (valueA === valueB && a > b);
}
