/**
 * Sorting of small index lists by a key array without allocation; used by the policies once or twice a plan.
 * Shell's method with Ciura's gaps: lists have 1 to a few hundred entries.
 */
const GAPS = [701, 301, 132, 57, 23, 10, 4, 1];

/** Fills order[0..count) with 0..count-1 by ascending keys[index]. Deterministic, not stable. */
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
