/**
 * The interface of a scheduling policy: for one layer, which active experts the GPU computes (from resident slots or
 * after a transfer) and which the NDP groups compute. Implemented by balanced.ts and baselines/, created through
 * registry.ts, called by planner.ts once a layer. Policies are pure: they see costs and residency, never a device.
 */
import type { Residency } from '../placement/residency.js';
import type { LayerPlan, LayerWork } from './plan.js';

/** Costs in microseconds. tokens >= 1. */
export interface Costs {
  /** GPU time of one expert whose slab is in VRAM. */
  gpuExpertUs(tokens: number): number;
  /** Time of NDP group `group` for one expert. */
  ndpExpertUs(tokens: number, group: number): number;
  /** Time the GPU takes for the shared expert of a layer with `tokens` tokens, before routed ones. Default 0. */
  sharedExpertUs?(tokens: number): number;
  /** Time the transfer lane is busy with one expert's slab. */
  readonly transferUs: number;
  /** Fixed time of a layer whose plan uses the GPU: launch and synchronisation. */
  readonly gpuOverheadUs: number;
  /** Fixed time of a layer whose plan uses NDP groups: command and result latency. */
  readonly ndpOverheadUs: number;
}

export type SchedulerShape = {
  /** Most experts of one layer. */
  numExperts: number;
  /** Expert e belongs to NDP group e % ndpGroups. */
  ndpGroups: number;
  /** VRAM slots per MoE layer, rounded down; what a fixed split may give to the GPU. */
  slotsPerLayer: number;
};

export interface Scheduler {
  readonly name: string;
  /**
   * Fills `plan`: entries ascending by expert id, each active expert once; GPU entries have a slot, and transfer = 1
   * exactly where the expert is neither resident nor arriving. Does not allocate. Equal inputs give equal plans.
   */
  plan(work: LayerWork, residency: Residency, costs: Costs, plan: LayerPlan): void;
}

/** A policy by name, with the sentence that `--help` and model.plan() show. */
export type SchedulerEntry = {
  name: string;
  description: string;
  create(shape: SchedulerShape): Scheduler;
};
