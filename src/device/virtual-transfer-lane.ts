/**
 * The transfer lane in virtual time: one copy after the other, on-demand ones before prefetches that have not started,
 * a started copy is never interrupted; the order of native/runtime/transfer_lane.cc. Used by simulated.ts only.
 */

export type FinishedTransfer = { slot: number; layer: number; startUs: number; endUs: number };

type Waiting = { slot: number; layer: number; submittedUs: number };

export class VirtualTransferLane {
  /** Time from which the lane is idle, prefetches that wait left out. */
  private freeUs = 0;
  private waiting: Waiting[] = [];
  /** Started copies that were not handed out yet, by end. */
  private started: FinishedTransfer[] = [];
  /** [slots] end of the last copy into the slot, once it has started. */
  private readonly endOfSlot: Float64Array;

  constructor(
    slots: number,
    private readonly copyUs: number,
  ) {
    this.endOfSlot = new Float64Array(slots);
  }

  /** Queues a copy behind all others. */
  prefetch(slot: number, layer: number, nowUs: number): void {
    this.advance(nowUs);
    this.endOfSlot[slot] = Number.POSITIVE_INFINITY;
    this.waiting.push({ slot, layer, submittedUs: nowUs });
    this.advance(nowUs);
  }

  /** Queues a copy behind the one on the lane and earlier on-demand ones; returns when it ends. */
  onDemand(slot: number, layer: number, nowUs: number): number {
    this.advance(nowUs);
    // A prefetch that waits for this slot would only be overwritten.
    const superseded = this.waiting.findIndex((entry) => entry.slot === slot);
    if (superseded >= 0) this.waiting.splice(superseded, 1);
    return this.start(slot, layer, nowUs);
  }

  /** When the slab in `slot` is whole; starts prefetches that wait before it, in order. */
  readyUs(slot: number): number {
    while (this.endOfSlot[slot] === Number.POSITIVE_INFINITY) this.startNext();
    return this.endOfSlot[slot] ?? 0;
  }

  /** Other traffic takes the link for `timeUs` from `nowUs` on: what is under way ends later by as much. */
  yieldTo(nowUs: number, timeUs: number): void {
    this.advance(nowUs);
    if (this.freeUs <= nowUs) {
      this.freeUs = nowUs + timeUs;
      return;
    }
    this.freeUs += timeUs;
    for (const copy of this.started) {
      if (copy.endUs <= nowUs) continue;
      copy.endUs += timeUs;
      if (copy.startUs > nowUs) copy.startUs += timeUs;
      this.endOfSlot[copy.slot] = copy.endUs;
    }
  }

  /** Starts what would have started by `nowUs`. */
  advance(nowUs: number): void {
    while (this.waiting.length > 0 && this.freeUs <= nowUs) this.startNext();
  }

  /** Copies that ended by `nowUs` and were not handed out before, in order. */
  takeFinished(nowUs: number): FinishedTransfer[] {
    this.advance(nowUs);
    let count = 0;
    while (count < this.started.length && (this.started[count] as FinishedTransfer).endUs <= nowUs) count++;
    return this.started.splice(0, count);
  }

  private startNext(): void {
    const next = this.waiting.shift();
    if (next !== undefined) this.start(next.slot, next.layer, next.submittedUs);
  }

  private start(slot: number, layer: number, earliestUs: number): number {
    const startUs = Math.max(this.freeUs, earliestUs);
    const endUs = startUs + this.copyUs;
    this.freeUs = endUs;
    this.endOfSlot[slot] = endUs;
    this.started.push({ slot, layer, startUs, endUs });
    return endUs;
  }
}
