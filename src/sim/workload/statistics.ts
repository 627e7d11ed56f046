/**
 * Statistics of recorded or synthetic routing, as the figures of real models are told (docs/simulation.md): skew,
 * reuse, how well one half predicts the other, what a least-recently-used cache would hit. Averages over layers.
 */
import type { RoutingRecord } from '../../engine/result.js';

/** Shares of a layer's experts that coverage and cache hits are told for. */
export const SHARES = [0.125, 0.25, 0.5] as const;

export type RoutingStatistics = {
  /** Coefficient of variation of the experts' counts. */
  variation: number;
  /** Share of a token's experts that the token before chose too. */
  reuse: number;
  /** Pearson correlation of the counts of both halves. */
  correlation: number;
  /** Share of the second half's choices among the first half's most chosen experts, per entry of SHARES. */
  coverage: number[];
  /** The same for the best quarter in hindsight. */
  bestQuarter: number;
  /** Share of choices in a cache of the most recently used experts, per entry of SHARES. */
  lruHits: number[];
};

/** Of the tokens [first, end) of a record. */
export function routingStatistics(record: RoutingRecord, first = 0, end = record.tokens): RoutingStatistics {
  const sum: RoutingStatistics = {
    variation: 0,
    reuse: 0,
    correlation: 0,
    coverage: SHARES.map(() => 0),
    bestQuarter: 0,
    lruHits: SHARES.map(() => 0),
  };
  record.layers.forEach((_, index) => {
    addLayer(sum, record, index, first, end);
  });
  const layers = record.layers.length;
  return {
    variation: sum.variation / layers,
    reuse: sum.reuse / layers,
    correlation: sum.correlation / layers,
    coverage: sum.coverage.map((value) => value / layers),
    bestQuarter: sum.bestQuarter / layers,
    lruHits: sum.lruHits.map((value) => value / layers),
  };
}

/** Mean of several records' statistics. */
export function meanStatistics(all: readonly RoutingStatistics[]): RoutingStatistics {
  const mean = (value: (one: RoutingStatistics) => number) =>
    all.reduce((sum, one) => sum + value(one), 0) / all.length;
  return {
    variation: mean((one) => one.variation),
    reuse: mean((one) => one.reuse),
    correlation: mean((one) => one.correlation),
    coverage: SHARES.map((_, i) => mean((one) => one.coverage[i] ?? 0)),
    bestQuarter: mean((one) => one.bestQuarter),
    lruHits: SHARES.map((_, i) => mean((one) => one.lruHits[i] ?? 0)),
  };
}

function addLayer(
  sum: RoutingStatistics,
  record: RoutingRecord,
  index: number,
  first: number,
  end: number,
): void {
  const { numExperts, topK, layers, ids } = record;
  const row = (token: number) => {
    const at = (token * layers.length + index) * topK;
    return ids.subarray(at, at + topK);
  };
  const middle = first + Math.floor((end - first) / 2);
  const before = new Float64Array(numExperts);
  const after = new Float64Array(numExperts);
  let reused = 0;
  for (let token = first; token < end; token++) {
    const own = row(token);
    const counts = token < middle ? before : after;
    for (const expert of own) counts[expert] = (counts[expert] ?? 0) + 1;
    if (token > first) for (const expert of own) if (row(token - 1).includes(expert)) reused++;
  }
  const both = before.map((count, expert) => count + (after[expert] ?? 0));
  sum.variation += variation(both);
  sum.reuse += reused / ((end - first - 1) * topK);
  sum.correlation += pearson(before, after);
  const ranked = [...before.keys()].sort((a, b) => (before[b] ?? 0) - (before[a] ?? 0));
  const chosenAfter = (end - middle) * topK;
  SHARES.forEach((share, i) => {
    const size = Math.round(numExperts * share);
    const covered = ranked.slice(0, size).reduce((total, expert) => total + (after[expert] ?? 0), 0);
    sum.coverage[i] = (sum.coverage[i] ?? 0) + covered / chosenAfter;
    sum.lruHits[i] = (sum.lruHits[i] ?? 0) + lruHits(row, first, end, size);
  });
  const best = after
    .slice()
    .sort()
    .reverse()
    .subarray(0, Math.round(numExperts / 4));
  sum.bestQuarter += best.reduce((total, count) => total + count, 0) / chosenAfter;
}

/** Hits of a cache of `size` experts that holds what was used last; a token's experts come in together. */
function lruHits(row: (token: number) => Uint16Array, first: number, end: number, size: number): number {
  let recent: number[] = [];
  let hits = 0;
  let choices = 0;
  for (let token = first; token < end; token++) {
    const own = row(token);
    for (const expert of own) if (recent.includes(expert)) hits++;
    choices += own.length;
    recent = [...own, ...recent.filter((expert) => !own.includes(expert))].slice(0, size);
  }
  return hits / choices;
}

function variation(counts: Float64Array): number {
  const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  const squares = counts.reduce((sum, count) => sum + (count - mean) ** 2, 0);
  return mean > 0 ? Math.sqrt(squares / counts.length) / mean : 0;
}

function pearson(left: Float64Array, right: Float64Array): number {
  const meanLeft = left.reduce((sum, value) => sum + value, 0) / left.length;
  const meanRight = right.reduce((sum, value) => sum + value, 0) / right.length;
  let product = 0;
  let squaresLeft = 0;
  let squaresRight = 0;
  for (let i = 0; i < left.length; i++) {
    const a = (left[i] ?? 0) - meanLeft;
    const b = (right[i] ?? 0) - meanRight;
    product += a * b;
    squaresLeft += a * a;
    squaresRight += b * b;
  }
  return squaresLeft > 0 && squaresRight > 0 ? product / Math.sqrt(squaresLeft * squaresRight) : 0;
}
