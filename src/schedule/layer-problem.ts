/**
 * One layer's scheduling problem in flat arrays, and what a division of its experts would take. Shared by all
 * policies, so that their predictions compare: load() once a plan, evaluate() per candidate, write() for the chosen one.
 *
 * Model: each NDP group computes its experts one after the other. The GPU computes the shared expert, what is resident,
 * prefetches already on the lane, on-demand transfers as they arrive, prefetches still queued, in this order. On-demand
 * transfers run one after the other and overlap with GPU compute: a two-machine flow shop with equal first operations,
 * for which descending GPU time is the best order (Johnson 1954).
 */
import type { Residency } from '../placement/residency.js';
import { GPU_PLACE, type LayerPlan, type LayerWork } from './plan.js';
import type { Costs, SchedulerShape } from './scheduler.js';
import { mendOrder, TokenOrder } from './sort-indices.js';

export const RESIDENT = 0;
/** Prefetch that is on the lane. */
export const ARRIVING = 1;
/** Absent: needs a slot and an on-demand transfer. */
export const ABSENT = 2;
/** Prefetch that waits behind on-demand transfers. */
export const QUEUED = 3;

/** Separates kinds in the sort key: longer than any time, short enough to keep fractions of a nanosecond. */
const KIND_STEP_US = 1e9;

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
  /** [count] indices by descending tokens. */
  readonly byTokens: Int32Array;
  /** [count] 1 where the GPU may compute the expert at all; see restrict(). */
  readonly gpuAllowed: Uint8Array;
  /** Most on-demand transfers. */
  transferLimit = 0;
  transferUs = 0;
  laneFreeUs = 0;
  /** GPU time before the first routed expert. */
  sharedUs = 0;
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
  private readonly tokenOrder: TokenOrder;

  constructor(shape: SchedulerShape) {
    const { numExperts, ndpGroups } = shape;
    this.groups = ndpGroups;
    this.gpuUs = new Float64Array(numExperts);
    this.ndpUs = new Float64Array(numExperts);
    this.group = new Int32Array(numExperts);
    this.kind = new Uint8Array(numExperts);
    this.arrivalUs = new Float64Array(numExperts);
    this.order = new Int32Array(numExperts);
    this.byTokens = new Int32Array(numExperts);
    this.tokenOrder = new TokenOrder(numExperts);
    this.gpuAllowed = new Uint8Array(numExperts);
    this.groupUs = new Float64Array(ndpGroups);
    this.slots = new Int32Array(numExperts);
    this.sortKeys = new Float64Array(numExperts);
  }

  /** Takes over one layer's work, residency and costs. */
  load(work: LayerWork, residency: Residency, costs: Costs): void {
    this.count = work.count;
    this.transferUs = costs.transferUs;
    this.laneFreeUs = residency.laneFreeUs;
    this.sharedUs = costs.sharedExpertUs?.(work.tokens) ?? 0;
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
      // By kind; then arrivals by time, all others by descending GPU time (of residents to put equal ones together).
      const within = kind === ABSENT || kind === RESIDENT ? -gpuUs : arrivalUs;
      this.sortKeys[i] = kind * KIND_STEP_US + within;
      if (kind === ABSENT) absent++;
    }
    this.transferLimit = Math.min(absent, residency.availableSlots);
    this.restrict(Number.POSITIVE_INFINITY);
    this.sortOrder(work);
  }

  private sortOrder(work: LayerWork): void {
    const { byTokens, order, kind } = this;
    this.tokenOrder.sort(work.tokenCounts, work.count, byTokens);
    let at = 0;
    for (let own = RESIDENT; own <= QUEUED; own++) {
      for (let i = 0; i < work.count; i++) {
        const index = byTokens[i] as number;
        if (kind[index] === own) order[at++] = index;
      }
    }
    mendOrder(order, this.sortKeys, work.count);
  }

  /** Makespan of a division: onGpu[i] = 1 where the GPU computes expert i. Leaves the details in the fields. */
  evaluate(onGpu: Uint8Array): number {
    const { groupUs, order, kind, count, group, gpuUs, ndpUs, arrivalUs, laneFreeUs, transferUs } = this;
    groupUs.fill(0);
    let transfers = 0;
    let finishUs = this.sharedUs;
    let onNdp = 0;
    for (let at = 0; at < count; at++) {
      const i = order[at] as number;
      if (onGpu[i] === 0) {
        const own = group[i] as number;
        groupUs[own] = (groupUs[own] as number) + (ndpUs[i] as number);
        onNdp++;
        continue;
      }
      // The same as readyUs(i, transfers), spelt out in the hottest loop.
      const ownKind = kind[i] as number;
      let readyUs = arrivalUs[i] as number;
      if (ownKind === ABSENT) readyUs = laneFreeUs + ++transfers * transferUs;
      else if (ownKind === QUEUED) readyUs += transfers * transferUs;
      finishUs = (finishUs > readyUs ? finishUs : readyUs) + (gpuUs[i] as number);
    }
    let groupsUs = 0;
    for (let own = 0; own < groupUs.length; own++) {
      if ((groupUs[own] as number) > groupsUs) groupsUs = groupUs[own] as number;
    }
    this.transfers = transfers;
    const gpuIdle = onNdp === count && finishUs === 0;
    this.gpuFinishUs = gpuIdle ? 0 : finishUs + this.gpuOverheadUs;
    this.ndpFinishUs = onNdp === 0 ? 0 : groupsUs + this.ndpOverheadUs;
    this.transferFinishUs = transfers === 0 ? 0 : laneFreeUs + transfers * transferUs;
    return this.gpuFinishUs > this.ndpFinishUs ? this.gpuFinishUs : this.ndpFinishUs;
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
    plan.tokens = work.tokens;
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

  /**
   * Rules out what cannot be part of a makespan below `limitUs`: experts that the GPU could not finish in time, and
   * more transfers than the lane could make.  Returns the number of experts that the GPU may still compute.
   */
  restrict(limitUs: number): number {
    const timeUs = limitUs - this.gpuOverheadUs;
    let allowed = 0;
    let leastUs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < this.count; i++) {
      const absent = this.kind[i] === ABSENT;
      const gpuUs = this.gpuUs[i] as number;
      const startUs = Math.max(this.sharedUs, this.readyUs(i, absent ? 1 : 0));
      const possible = startUs + gpuUs < timeUs && !(absent && this.transferLimit === 0);
      this.gpuAllowed[i] = possible ? 1 : 0;
      if (!possible) continue;
      allowed++;
      if (absent && gpuUs < leastUs) leastUs = gpuUs;
    }
    const laneUs = timeUs - leastUs - this.laneFreeUs;
    if (laneUs < this.transferLimit * this.transferUs) {
      this.transferLimit = Math.max(0, Math.floor(laneUs / this.transferUs));
    }
    return allowed;
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
}

function kindOf(slot: number, arrivalUs: number, laneFreeUs: number): number {
  if (slot < 0) return ABSENT;
  if (arrivalUs <= 0) return RESIDENT;
  return arrivalUs <= laneFreeUs ? ARRIVING : QUEUED;
}
