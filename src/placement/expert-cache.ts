/**
 * What the VRAM slots hold: free, arriving (a prefetch is under way) or resident, and which one is given up next.
 * Called by schedule/planner.ts and prefetcher.ts; decides about slots only, moves no bytes.
 * Slots that the plan under way uses, pinned ones and arriving ones are never given up.
 */
import { OptionError } from '../errors.js';
import { type CacheStats, emptyStats } from './cache-stats.js';
import { createEviction, type Eviction } from './eviction.js';
import { LayerMinima } from './layer-minima.js';
import type { ActiveExperts, PlannedExperts, Residency } from './residency.js';
import { TransferLane } from './transfer-lane.js';

export type ExpertCacheOptions = {
  /** Layers of the model; dense ones simply never appear. */
  layers: number;
  /** Most experts of a layer. */
  numExperts: number;
  /** VRAM slots, one slab each; 0 = no GPU lane. */
  slots: number;
  /** Bytes of a slab, for bytesMoved. */
  expertBytes: number;
  /** Name of an eviction rule. Default 'score'. */
  eviction?: string;
};

export const SLOT_FREE = 0;
export const SLOT_ARRIVING = 1;
export const SLOT_RESIDENT = 2;

const NONE = -1;

export class ExpertCache {
  readonly slots: number;
  readonly numExperts: number;
  readonly eviction: Eviction;
  readonly lane: TransferLane;
  readonly stats: CacheStats = emptyStats();

  private readonly expertBytes: number;
  /** [slots] layer * numExperts + expert, NONE where free. */
  private readonly keys: Int32Array;
  /** [layers * numExperts] slot or NONE. */
  private readonly slotOfKey: Int32Array;
  private readonly states: Uint8Array;
  private readonly pinned: Uint8Array;
  /** [slots] 1: came by prefetch and was not used since. */
  private readonly unused: Uint8Array;
  /** [slots] number of the last plan that used the slot, or whose layer's active experts it holds. */
  private readonly usedBy: Int32Array;
  private planNumber = 0;
  private readonly freeSlots: Int32Array;
  private freeCount: number;
  /** [slots] 1: resident and not pinned; and how many these are. */
  private readonly replaceable: Uint8Array;
  private replaceableCount = 0;
  private readonly view: CacheResidency;
  private readonly minima: LayerMinima;
  /** Layer of the plan under way. */
  private plannedLayer = 0;

  constructor(options: ExpertCacheOptions) {
    const { layers, numExperts, slots } = options;
    if (!Number.isInteger(slots) || slots < 0) throw new OptionError('slots', 'an integer >= 0', slots);
    this.slots = slots;
    this.numExperts = numExperts;
    this.expertBytes = options.expertBytes;
    this.eviction = createEviction(options.eviction ?? 'score', layers, numExperts);
    this.lane = new TransferLane(slots);
    this.keys = new Int32Array(slots).fill(NONE);
    this.slotOfKey = new Int32Array(layers * numExperts).fill(NONE);
    this.states = new Uint8Array(slots);
    this.pinned = new Uint8Array(slots);
    this.unused = new Uint8Array(slots);
    this.usedBy = new Int32Array(slots).fill(NONE);
    this.freeSlots = Int32Array.from({ length: slots }, (_, index) => slots - 1 - index);
    this.freeCount = slots;
    this.replaceable = new Uint8Array(slots);
    this.view = new CacheResidency(this, numExperts);
    this.minima = new LayerMinima(layers, numExperts, this.slotOfKey, (slot) => this.isEvictable(slot));
  }

  /** Slot that holds or will hold the expert, -1 where it is absent. */
  slotOf(layer: number, expert: number): number {
    return this.slotOfKey[layer * this.numExperts + expert] as number;
  }

  stateOf(slot: number): number {
    return this.states[slot] as number;
  }

  /** What a slot holds: layer * numExperts + expert, or -1. */
  keyOf(slot: number): number {
    return this.keys[slot] as number;
  }

  /**
   * What the scheduler may count on for this layer; the view is reused by the next call. Starts a new plan: slots of
   * the previous one are given free, those of this layer's active experts are held.
   */
  beginPlan(work: ActiveExperts, nowUs: number): Residency {
    this.planNumber++;
    this.minima.touch(this.plannedLayer);
    this.plannedLayer = work.layer;
    this.minima.touch(work.layer);
    const view = this.view;
    view.availableSlots = this.freeCount + this.replaceableCount;
    const base = work.layer * this.numExperts;
    for (let i = 0; i < work.count; i++) {
      const slot = this.slotOfKey[base + (work.expertIds[i] as number)] as number;
      view.slots[i] = slot;
      view.arrivalUs[i] = 0;
      if (slot < 0) continue;
      this.usedBy[slot] = this.planNumber;
      view.availableSlots -= this.replaceable[slot] as number;
      if (this.states[slot] === SLOT_ARRIVING) view.arrivalUs[i] = this.lane.arrivalUs(slot, nowUs);
    }
    view.laneFreeUs = this.lane.onDemandDelayUs(nowUs);
    return view;
  }

  /** Takes over a plan's on-demand transfers, counts, and notes the activations of `tokens` tokens. */
  commitPlan(plan: PlannedExperts, tokens: number, nowUs: number, slabUs: number): void {
    const { stats } = this;
    let copied = 0;
    for (let i = 0; i < plan.count; i++) {
      const slot = plan.slots[i] as number;
      const key = plan.layer * this.numExperts + (plan.expertIds[i] as number);
      if ((this.slotOfKey[key] as number) >= 0) stats.residentActivated++;
      if (slot < 0) continue;
      stats.onGpu++;
      if (plan.transfers[i] === 1) {
        this.occupy(slot, key, SLOT_RESIDENT);
        this.usedBy[slot] = this.planNumber;
        copied++;
        continue;
      }
      stats.hits++;
      if (this.unused[slot] === 1) stats.prefetchUsed++;
      this.unused[slot] = 0;
    }
    stats.activated += plan.count;
    stats.misses += copied;
    stats.onNdp = stats.activated - stats.onGpu;
    if (copied > 0) this.lane.submitOnDemand(copied, nowUs, slabUs);
    this.eviction.observe(plan, tokens);
    this.rescored(plan.layer);
  }

  /** Starts a prefetch: `slot` must come from lowestSlot and holds the expert from now on, as arriving. */
  admitPrefetch(layer: number, expert: number, slot: number, nowUs: number, slabUs: number): void {
    this.occupy(slot, layer * this.numExperts + expert, SLOT_ARRIVING);
    this.unused[slot] = 1;
    this.stats.prefetched++;
    this.lane.submitPrefetch(slot, nowUs, slabUs);
  }

  /** A transfer into `slot` is done. Call for all of Device.completedTransfers() before each plan. */
  completeTransfer(slot: number, nowUs: number): void {
    this.lane.complete(slot, nowUs);
    if (this.states[slot] === SLOT_ARRIVING) this.setState(slot, SLOT_RESIDENT, this.pinned[slot] as number);
  }

  /** Keeps a resident or arriving expert in VRAM until unpinned; false where it is absent. */
  pin(layer: number, expert: number): boolean {
    const slot = this.slotOf(layer, expert);
    if (slot >= 0) this.setState(slot, this.stateOf(slot), 1);
    return slot >= 0;
  }

  unpin(layer: number, expert: number): void {
    const slot = this.slotOf(layer, expert);
    if (slot >= 0) this.setState(slot, this.stateOf(slot), 0);
  }

  /** Gives up an expert's slot, as when its transfer was never made; false where it is absent, arriving or pinned. */
  evict(layer: number, expert: number): boolean {
    const slot = this.slotOf(layer, expert);
    if (slot < 0 || this.states[slot] !== SLOT_RESIDENT || this.pinned[slot] === 1) return false;
    this.vacate(slot);
    this.setState(slot, SLOT_FREE, 0);
    this.freeSlots[this.freeCount++] = slot;
    return true;
  }

  /** Scores that lowestSlot is asked with are others now for a layer's experts. */
  rescored(layer: number): void {
    this.minima.touch(layer);
  }

  /** A free slot, else the evictable one whose expert has the lowest score ([layers * numExperts]), else -1. */
  lowestSlot(scores: Float64Array): number {
    return this.freeCount > 0 ? (this.freeSlots[this.freeCount - 1] as number) : this.minima.slot(scores);
  }

  /** Writes the next `count` slots to give up into `out`: free ones, then victims by the eviction rule. */
  takeSlots(count: number, out: Int32Array): void {
    let taken = 0;
    while (taken < count && taken < this.freeCount) {
      out[taken] = this.freeSlots[this.freeCount - 1 - taken] as number;
      taken++;
    }
    if (taken < count) this.selectVictims(taken, count, out);
  }

  /** The (layer, expert) pairs in VRAM now, arriving ones left out. */
  residents(): { layer: number; expert: number }[] {
    const found: { layer: number; expert: number }[] = [];
    for (let key = 0; key < this.slotOfKey.length; key++) {
      const slot = this.slotOfKey[key] as number;
      if (slot < 0 || this.states[slot] !== SLOT_RESIDENT) continue;
      found.push({ layer: Math.floor(key / this.numExperts), expert: key % this.numExperts });
    }
    return found;
  }

  resetStats(): void {
    Object.assign(this.stats, emptyStats());
  }

  private setState(slot: number, state: number, pinned: number): void {
    this.states[slot] = state;
    this.pinned[slot] = pinned;
    const replaceable = state === SLOT_RESIDENT && pinned === 0 ? 1 : 0;
    this.replaceableCount += replaceable - (this.replaceable[slot] as number);
    this.minima.touchKey(this.keys[slot] as number);
    this.replaceable[slot] = replaceable;
  }

  private isEvictable(slot: number): boolean {
    return this.replaceable[slot] === 1 && this.usedBy[slot] !== this.planNumber;
  }

  /** out[from..to) by insertion: the slots with the lowest priorities, ascending; ties to the lower slot. */
  private selectVictims(from: number, to: number, out: Int32Array): void {
    const { priorities } = this.eviction;
    let filled = from;
    for (let slot = 0; slot < this.slots; slot++) {
      if (!this.isEvictable(slot)) continue;
      const priority = priorities[this.keys[slot] as number] as number;
      if (filled === to && priority >= this.priorityOf(out[to - 1] as number)) continue;
      let at = filled < to ? filled++ : to - 1;
      for (; at > from && this.priorityOf(out[at - 1] as number) > priority; at--) {
        out[at] = out[at - 1] as number;
      }
      out[at] = slot;
    }
  }

  private priorityOf(slot: number): number {
    return this.eviction.priorities[this.keys[slot] as number] as number;
  }

  private occupy(slot: number, key: number, state: number): void {
    if (this.states[slot] === SLOT_FREE) this.removeFree(slot);
    else this.vacate(slot);
    this.keys[slot] = key;
    this.slotOfKey[key] = slot;
    this.setState(slot, state, 0);
    this.unused[slot] = 0;
    this.stats.bytesMoved += this.expertBytes;
    this.eviction.admit(key);
  }

  private vacate(slot: number): void {
    this.slotOfKey[this.keys[slot] as number] = NONE;
    this.minima.touchKey(this.keys[slot] as number);
    this.keys[slot] = NONE;
    this.unused[slot] = 0;
    this.stats.evictions++;
  }

  private removeFree(slot: number): void {
    const at = this.freeSlots.lastIndexOf(slot, this.freeCount - 1);
    this.freeSlots.copyWithin(at, at + 1, this.freeCount);
    this.freeCount--;
  }
}

/** The reused view that beginPlan returns. */
class CacheResidency implements Residency {
  readonly slots: Int32Array;
  readonly arrivalUs: Float64Array;
  availableSlots = 0;
  laneFreeUs = 0;

  constructor(
    private readonly cache: ExpertCache,
    numExperts: number,
  ) {
    this.slots = new Int32Array(numExperts);
    this.arrivalUs = new Float64Array(numExperts);
  }

  takeSlots(count: number, out: Int32Array): void {
    this.cache.takeSlots(count, out);
  }
}
