/**
 * When prefetches that are under way will arrive, as far as this side can tell: transfers run one after the other,
 * on-demand ones overtake prefetches that have not started. Used by ExpertCache, which gives it every submission and
 * every completion; holds estimates only, never decides what is usable.
 */
export class TransferLane {
  /** [capacity] slots of prefetches under way, in order of submission; entry 0 is on the lane. */
  private readonly queue: Int32Array;
  private queued = 0;
  /** Estimated time at which entry 0 is done. */
  private headDoneAtUs = 0;
  /** Time from which the lane is free of on-demand transfers. */
  private onDemandDoneAtUs = 0;
  private slabUs = 0;

  constructor(capacity: number) {
    this.queue = new Int32Array(capacity);
  }

  /** Prefetches under way. */
  get outstanding(): number {
    return this.queued;
  }

  submitPrefetch(slot: number, nowUs: number, slabUs: number): void {
    this.slabUs = slabUs;
    if (this.queued === 0) this.headDoneAtUs = Math.max(nowUs, this.onDemandDoneAtUs) + slabUs;
    this.queue[this.queued++] = slot;
  }

  /** `count` on-demand transfers, submitted now, run after entry 0 and before the other prefetches. */
  submitOnDemand(count: number, nowUs: number, slabUs: number): void {
    this.slabUs = slabUs;
    this.onDemandDoneAtUs = nowUs + this.onDemandDelayUs(nowUs) + count * slabUs;
  }

  /** Takes note that a prefetch is done; unknown slots (on-demand transfers) are ignored. */
  complete(slot: number, nowUs: number): void {
    const at = this.positionOf(slot);
    if (at < 0) return;
    this.queue.copyWithin(at, at + 1, this.queued);
    this.queued--;
    if (at === 0) this.headDoneAtUs = Math.max(nowUs, this.onDemandDoneAtUs) + this.slabUs;
  }

  /** Time until an on-demand transfer submitted now could start. */
  onDemandDelayUs(nowUs: number): number {
    const headUs = this.queued > 0 ? Math.max(this.headDoneAtUs - nowUs, MIN_ARRIVAL_US) : 0;
    return Math.max(headUs, this.onDemandDoneAtUs - nowUs);
  }

  /** Time until the prefetch into `slot` has arrived; a late one counts as arriving any moment. */
  arrivalUs(slot: number, nowUs: number): number {
    const at = this.positionOf(slot);
    if (at < 0) return 0;
    const headUs = Math.max(this.headDoneAtUs - nowUs, MIN_ARRIVAL_US);
    if (at === 0) return headUs;
    return Math.max(headUs, this.onDemandDoneAtUs - nowUs) + at * this.slabUs;
  }

  private positionOf(slot: number): number {
    for (let at = 0; at < this.queued; at++) if (this.queue[at] === slot) return at;
    return -1;
  }
}

/** Least time told for a slab that has not been reported complete. */
const MIN_ARRIVAL_US = 0.1;
