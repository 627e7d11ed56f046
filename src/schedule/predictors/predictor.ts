/**
 * The interface of a predictor: how much each (layer, expert) pair will be used, learned from routing alone. The
 * prefetcher asks it what to copy ahead of need; implementations lie beside this file.
 */
import type { LayerWork } from '../plan.js';

/** Pairs worth a transfer, best first. */
export type PrefetchCandidates = {
  count: number;
  /** [capacity] layer * numExperts + expert */
  keys: Int32Array;
  /** [capacity] expected value in the unit of `scores`. */
  scores: Float64Array;
};

/** Tells which pairs are in VRAM or on their way: slot, or -1. */
export type SlotLookup = { slotOf(layer: number, expert: number): number };

export interface ExpertPredictor {
  readonly name: string;
  /** [layers * numExperts] expected use of each pair; only comparisons count. */
  readonly scores: Float64Array;
  /** Least difference of scores that is more than chance: a resident is replaced only beyond it. */
  readonly noise: number;
  /** True where candidates are for the next layer: a prefetch that could not start before it is not worth having. */
  readonly isTimely?: boolean;
  /** Takes note of a layer's routing. Layers come in ascending order within a step. */
  observe(work: LayerWork): void;
  /** A guess of the experts that `layer` will need next, from a lookahead; predictors may ignore it. */
  hint?(layer: number, expertIds: Int32Array, count: number): void;
  /**
   * Lists absent pairs to copy while `layer` computes, best first, at most `capacity`. The first `inTime` of them
   * would arrive in time for the next layer.
   */
  candidates(
    layer: number,
    vram: SlotLookup,
    capacity: number,
    out: PrefetchCandidates,
    inTime: number,
  ): void;
}

export type PredictorEntry = {
  /** Value of the prefetch option. */
  name: string;
  description: string;
  create(layers: number, numExperts: number): ExpertPredictor;
};
