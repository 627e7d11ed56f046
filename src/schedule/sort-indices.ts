/**
 * Sorting of small index lists by a key array, without allocation; used by the policies a few times a plan.
 * Experts with more tokens take longer on every device, so an order by tokens, which is cheap to get, is nearly the
 * order by any cost: sort by tokens first, then let insertion mend the rest.
 */

const GAPS = [701, 301, 132, 57, 23, 10, 4, 1];

/** Fills order[0..count) with 0..count-1 by ascending keys[index], by Shell's method. Deterministic, not stable. */
export function sortIndices(order: Int32Array, keys: Float64Array, count: number): void {
  for (let i = 0; i < count; i++) order[i] = i;
  for (let g = 0; g < GAPS.length; g++) {
    const gap = GAPS[g] as number;
    for (let i = gap; i < count; i++) {
      const index = order[i] as number;
      const key = keys[index] as number;
      let at = i;
      for (; at >= gap; at -= gap) {
        const before = order[at - gap] as number;
        if ((keys[before] as number) <= key) break;
        order[at] = before;
      }
      order[at] = index;
    }
  }
}

/** Sorts the indices in order[0..count) by ascending keys[index]; stable, linear where they are nearly sorted. */
export function mendOrder(order: Int32Array, keys: Float64Array, count: number): void {
  for (let i = 1; i < count; i++) {
    const index = order[i] as number;
    const key = keys[index] as number;
    let at = i;
    for (; at > 0; at--) {
      const before = order[at - 1] as number;
      if ((keys[before] as number) <= key) break;
      order[at] = before;
    }
    order[at] = index;
  }
}

const RADIX = 256;
/** Up to here insertion is faster than clearing the radix table. */
const FEW = 16;

/** Orders experts by descending tokens, ties by ascending index: radix sort with as many passes as tokens have bytes. */
export class TokenOrder {
  private readonly ends = new Int32Array(RADIX + 1);
  private readonly scratch: Int32Array;

  constructor(capacity: number) {
    this.scratch = new Int32Array(capacity);
  }

  /** Fills order[0..count). */
  sort(tokens: Int32Array, count: number, order: Int32Array): void {
    if (count <= FEW) {
      this.insert(tokens, count, order);
      return;
    }
    let most = 0;
    for (let i = 0; i < count; i++) {
      order[i] = i;
      if ((tokens[i] as number) > most) most = tokens[i] as number;
    }
    for (let shift = 0; most >> shift > 0 && shift < 31; shift += 8) this.pass(tokens, count, order, shift);
  }

  private insert(tokens: Int32Array, count: number, order: Int32Array): void {
    for (let i = 0; i < count; i++) {
      let at = i;
      for (; at > 0 && (tokens[order[at - 1] as number] as number) < (tokens[i] as number); at--) {
        order[at] = order[at - 1] as number;
      }
      order[at] = i;
    }
  }

  private pass(tokens: Int32Array, count: number, order: Int32Array, shift: number): void {
    const { ends, scratch } = this;
    ends.fill(0);
    for (let i = 0; i < count; i++) {
      const digit = (((tokens[i] as number) >> shift) & (RADIX - 1)) ^ (RADIX - 1);
      ends[digit + 1] = (ends[digit + 1] as number) + 1;
    }
    for (let digit = 0; digit < RADIX; digit++)
      ends[digit + 1] = (ends[digit + 1] as number) + (ends[digit] as number);
    for (let i = 0; i < count; i++) scratch[i] = order[i] as number;
    for (let i = 0; i < count; i++) {
      const index = scratch[i] as number;
      const digit = (((tokens[index] as number) >> shift) & (RADIX - 1)) ^ (RADIX - 1);
      order[ends[digit] as number] = index;
      ends[digit] = (ends[digit] as number) + 1;
    }
  }
}
