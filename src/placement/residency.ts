/**
 * What the scheduler is told about VRAM for one layer: which active experts lie in a slot, which are on their way,
 * how many slots a plan may take. Written by ExpertCache (or by a test), read by the policies of src/schedule.
 * Types only; indices i run over the layer's active experts in ascending expert id.
 */

/** Active experts of one MoE layer in one step: those that at least one token chose, ascending by id. */
export type ActiveExperts = {
  layer: number;
  count: number;
  /** [count] */
  expertIds: Int32Array;
  /** [count] tokens routed to the expert, >= 1 */
  tokenCounts: Int32Array;
};

/** The part of a plan that changes what VRAM holds; LayerPlan of src/schedule has this shape. */
export type PlannedExperts = ActiveExperts & {
  /** [count] GPU_PLACE or an NDP group's number */
  places: Int32Array;
  /** [count] slot of experts on the GPU, else -1 */
  slots: Int32Array;
  /** [count] 1: the slab is copied into the slot first (on demand) */
  transfers: Int32Array;
};

export interface Residency {
  /** [count] slot that holds the expert or will hold it, -1 where it is absent. */
  readonly slots: Int32Array;
  /** [count] microseconds from now until the slab can be used; 0 where resident or absent. */
  readonly arrivalUs: Float64Array;
  /** Slots that on-demand transfers of this plan may take; never those of the layer's active experts. */
  readonly availableSlots: number;
  /** Microseconds from now until the transfer lane can start an on-demand transfer. */
  readonly laneFreeUs: number;
  /**
   * Writes the next `count` slots for on-demand transfers, all different, into `out`: free ones first, then victims
   * in eviction order. `count` <= availableSlots.
   */
  takeSlots(count: number, out: Int32Array): void;
}
