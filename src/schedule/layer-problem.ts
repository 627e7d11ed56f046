/**
 * One layer's scheduling problem in flat arrays, and what a division of its experts would take. Shared by all
 * policies, so that their predictions compare: load() once a plan, evaluate() per candidate, write() for the chosen.
 *
 * Model: each NDP group computes its experts one after the other. The GPU computes first what is resident, then
 * prefetches already on the lane, then on-demand transfers as they arrive, then prefetches still queued. On-demand
 * transfers run one after the other and overlap with GPU compute: a two-machine flow shop with equal first operations,
 * for which descending GPU time is the best order (Johnson 1954).
 */
import type { Residency } from '../placement/residency.js';
import { GPU_PLACE, type LayerPlan, type LayerWork } from './plan.js';
import type { Costs, SchedulerShape } from './scheduler.js';

export const RESIDENT = 0;
/** Prefetch that is on the lane. */
export const ARRIVING = 1;
/** Absent: needs a slot and an on-demand transfer. */
export const ABSENT = 2;
/** Prefetch that waits behind on-demand transfers. */
export const QUEUED = 3;

export class LayerProblem {
  /** Active experts. */
  count = 0;
  readonly groups: number;
  /** [count] */
  readonly gpuUs: Float64Array;
  readonly ndpUs: Float64Array;
  readonly group: Int32Array;
  readonly kind: Uint8Array;
  readonly arrivalUs: Float64Array;
  /** [count] indices in the order in which the GPU would compute them. */
  readonly order: Int32Array;
  /** Most on-demand transfers. */
  transferLimit = 0;
  transferUs = 0;
  laneFreeUs = 0;
  gpuOverheadUs = 0;
  ndpOverheadUs = 0;

  /** Results of the last evaluate(). */
  gpuFinishUs = 0;
  ndpFinishUs = 0;
  transferFinishUs = 0;
  transfers = 0;
  /** [groups] time of each group's experts, without the fixed time. */
  readonly groupUs: Float64Array;

  private readonly slots: Int32Array;
  private readonly sortKeys: Float64Array;

  constructor(shape: SchedulerShape) {
    const { numExperts, ndpGroups } = shape;
    this.groups = ndpGroups;
    this.gpuUs = new Float64Array(numExperts);
    this.ndpUs = new Float64Array(numExperts);
    this.group = new Int32Array(numExperts);
    this.kind = new Uint8Array(numExperts);
    this.arrivalUs = new Float64Array(numExperts);
    this.order = new Int32Array(numExperts);
    this.groupUs = new Float64Array(ndpGroups);
    this.slots = new Int32Array(numExperts);
    this.sortKeys = new Float64Array(numExperts);
  }

  /** Takes over one layer's work, residency and costs. */
  load(work: LayerWork, residency: Residency, costs: Costs): void {
    this.count = work.count;
    this.transferUs = costs.transferUs;
    this.laneFreeUs = residency.laneFreeUs;
    this.gpuOverheadUs = costs.gpuOverheadUs;
    this.ndpOverheadUs = costs.ndpOverheadUs;
    let absent = 0;
    for (let i = 0; i < work.count; i++) {
      const tokens = work.tokenCounts[i] as number;
      const group = (work.expertIds[i] as number) % this.groups;
      const arrivalUs = residency.arrivalUs[i] as number;
      const kind = kindOf(residency.slots[i] as number, arrivalUs, residency.laneFreeUs);
      const gpuUs = costs.gpuExpertUs(tokens);
      this.gpuUs[i] = gpuUs;
      this.ndpUs[i] = costs.ndpExpertUs(tokens, group);
      this.group[i] = group;
      this.kind[i] = kind;
      this.arrivalUs[i] = arrivalUs;
      // Ascending: residents, arrivals by time, absent by descending GPU time.
      this.sortKeys[i] = kind === ABSENT ? -gpuUs : arrivalUs;
      if (kind === ABSENT) absent++;
    }
    this.transferLimit = Math.min(absent, residency.availableSlots);
    this.sortOrder();
  }

  /** Makespan of a division: onGpu[i] = 1 where the GPU computes expert i. Leaves the details in the fields. */
  evaluate(onGpu: Uint8Array): number {
    const { groupUs, order, kind } = this;
    groupUs.fill(0);
    let transfers = 0;
    let gpuUs = 0;
    let onNdp = 0;
    for (let at = 0; at < this.count; at++) {
      const i = order[at] as number;
      if (onGpu[i] === 0) {
        const group = this.group[i] as number;
        groupUs[group] = (groupUs[group] as number) + (this.ndpUs[i] as number);
        onNdp++;
        continue;
      }
      if (kind[i] === ABSENT) transfers++;
      const readyUs = this.readyUs(i, transfers);
      gpuUs = (gpuUs > readyUs ? gpuUs : readyUs) + (this.gpuUs[i] as number);
    }
    let ndpUs = 0;
    for (let group = 0; group < this.groups; group++) {
      if ((groupUs[group] as number) > ndpUs) ndpUs = groupUs[group] as number;
    }
    this.transfers = transfers;
    this.gpuFinishUs = onNdp === this.count ? 0 : gpuUs + this.gpuOverheadUs;
    this.ndpFinishUs = onNdp === 0 ? 0 : ndpUs + this.ndpOverheadUs;
    this.transferFinishUs = transfers === 0 ? 0 : this.laneFreeUs + transfers * this.transferUs;
    return Math.max(this.gpuFinishUs, this.ndpFinishUs);
  }

  /** When expert i can start on the GPU, with `transfers` on-demand transfers up to and including its own. */
  readyUs(i: number, transfers: number): number {
    switch (this.kind[i]) {
      case RESIDENT:
        return 0;
      case ARRIVING:
        return this.arrivalUs[i] as number;
      case ABSENT:
        return this.laneFreeUs + transfers * this.transferUs;
      default:
        return (this.arrivalUs[i] as number) + transfers * this.transferUs;
    }
  }

  /** Writes the division as a plan: entries in ascending expert id, slots for transfers from the residency. */
  write(onGpu: Uint8Array, work: LayerWork, residency: Residency, plan: LayerPlan): void {
    const makespanUs = this.evaluate(onGpu);
    if (this.transfers > 0) residency.takeSlots(this.transfers, this.slots);
    let taken = 0;
    plan.layer = work.layer;
    plan.count = work.count;
    for (let i = 0; i < work.count; i++) {
      const gpu = onGpu[i] === 1;
      const copied = gpu && this.kind[i] === ABSENT;
      plan.expertIds[i] = work.expertIds[i] as number;
      plan.tokenCounts[i] = work.tokenCounts[i] as number;
      plan.places[i] = gpu ? GPU_PLACE : (this.group[i] as number);
      plan.transfers[i] = copied ? 1 : 0;
      if (copied) plan.slots[i] = this.slots[taken++] as number;
      else plan.slots[i] = gpu ? (residency.slots[i] as number) : -1;
    }
    const { prediction } = plan;
    prediction.gpuUs = this.gpuFinishUs;
    prediction.ndpUs = this.ndpFinishUs;
    prediction.transferUs = this.transferFinishUs;
    prediction.makespanUs = makespanUs;
  }

  /** Everything that may go to the GPU does: absent experts in descending GPU time while there are slots. */
  allOnGpu(onGpu: Uint8Array): void {
    let transfers = 0;
    for (let at = 0; at < this.count; at++) {
      const i = this.order[at] as number;
      const absent = this.kind[i] === ABSENT;
      onGpu[i] = absent && transfers === this.transferLimit ? 0 : 1;
      if (absent && onGpu[i] === 1) transfers++;
    }
  }

  /** Insertion by kind, then sort key, then index: lists are short and mostly of one kind. */
  private sortOrder(): void {
    const { order, kind, sortKeys } = this;
    for (let i = 0; i < this.count; i++) {
      const key = sortKeys[i] as number;
      const own = kind[i] as number;
      let at = i;
      for (; at > 0; at--) {
        const before = order[at - 1] as number;
        const other = kind[before] as number;
        if (other < own || (other === own && (sortKeys[before] as number) <= key)) break;
        order[at] = before;
      }
      order[at] = i;
    }
  }
}

function kindOf(slot: number, arrivalUs: number, laneFreeUs: number): number {
  if (slot < 0) return ABSENT;
  if (arrivalUs <= 0) return RESIDENT;
  return arrivalUs <= laneFreeUs ? ARRIVING : QUEUED;
}
