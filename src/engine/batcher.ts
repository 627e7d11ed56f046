/**
 * Chooses what one step computes: a decode token of each running sequence, then prefill chunks, under a budget of
 * tokens, and gives the sequences KV blocks, first those that hold their tokens already. Where blocks run out, the
 * youngest sequence gives its own back and is computed anew later (preemption by recomputation; results do not
 * change, see docs/architecture.md). Called by the engine between steps; never touches a device.
 */
import { blocksFor, KvBlocks } from './kv-blocks.js';
import type { Sequence } from './sequence.js';
import { SequenceCache, type SequenceCacheLimits } from './sequence-cache.js';

/** `count` tokens of the sequence from `sequence.computed` on. */
export type StepEntry = { sequence: Sequence; count: number };

export type BatchLimits = SequenceCacheLimits & { maxBatchTokens: number; maxSequences: number };

/** Rows of logits that a step may need: one for each sequence, or a chunk of a prompt whose tokens are scored. */
export function maxLogitRows({
  maxSequences,
  maxBatchTokens,
}: Pick<BatchLimits, 'maxSequences' | 'maxBatchTokens'>): number {
  return Math.max(maxSequences, Math.min(SCORED_CHUNK, maxBatchTokens));
}
const SCORED_CHUNK = 32;

export class Batcher {
  #limits: BatchLimits;
  #blocks: KvBlocks;
  #cache: SequenceCache;
  #waiting: Sequence[] = [];
  /** In order of admission. */
  #running: Sequence[] = [];

  /** `states`: slots for the states of sequences, at least two for each that runs; none where the model has none. */
  constructor(limits: BatchLimits, blocks: KvBlocks, states = new KvBlocks(0)) {
    this.#limits = limits;
    this.#blocks = blocks;
    this.#cache = new SequenceCache(blocks, states, limits);
  }

  get counts() {
    return { running: this.#running.length, waiting: this.#waiting.length };
  }

  add(sequence: Sequence): void {
    this.#waiting.push(sequence);
  }

  /** Takes a sequence out, whatever its state, and frees its blocks. */
  remove(sequence: Sequence): void {
    this.#waiting = this.#waiting.filter((other) => other !== sequence);
    this.#running = this.#running.filter((other) => other !== sequence);
    this.#cache.release(sequence);
  }

  /** The next step, empty where nothing can be computed. Sequences advance by `advance`, once it is done. */
  next(): StepEntry[] {
    this.#admit();
    const entries: StepEntry[] = [];
    let budget = this.#limits.maxBatchTokens;
    const ready = this.#running.filter(isReady).slice(0, this.#limits.maxSequences);
    // Each sequence may need one row of logits; scored prompts share what is left.
    let spareRows = maxLogitRows(this.#limits) - ready.length;
    const take = (sequence: Sequence, most: number) => {
      const isScored = sequence.scored < sequence.promptLength;
      const count = this.#cache.chunk(sequence, Math.min(most, budget, isScored ? 1 + spareRows : Infinity));
      if (count === 0 || !this.#reserve(sequence, count, entries)) return;
      entries.push({ sequence, count });
      budget -= count;
      if (isScored) spareRows -= count - 1;
    };
    for (const sequence of ready) if (sequence.pending === 1) take(sequence, 1);
    const prefilling = ready.filter((sequence) => sequence.pending > 1 && this.#running.includes(sequence));
    const prefills = this.#cache.independent(prefilling);
    // What is left goes to the prefills in equal shares, so that a long prompt does not hold up a short one.
    prefills.forEach((sequence, index) => {
      take(sequence, Math.ceil(budget / (prefills.length - index)));
    });
    return entries;
  }

  /** The step was computed: its tokens are in the KV cache now. */
  advance(entries: readonly StepEntry[]): void {
    for (const { sequence, count } of entries) this.#cache.advance(sequence, count);
  }

  /** The KV cache was lost: every sequence is computed anew, in the order in which they came. */
  recomputeAll(): void {
    for (const sequence of this.#running.slice().reverse()) this.#preempt(sequence);
    this.#cache.forget();
  }

  /** Lets waiting sequences in, in order. Those whose reader lags neither count nor keep their blocks from others. */
  #admit(): void {
    while (this.#running.filter(isReady).length < this.#limits.maxSequences) {
      const sequence = this.#waiting.find(isReady);
      if (sequence === undefined) return;
      this.#cache.adopt(sequence);
      // All of its tokens must fit beside the others, or admission would only lead to preemption.
      if (!this.#makeRoom(blocksFor(sequence.length) - sequence.blockIds.length)) {
        this.#cache.release(sequence);
        return;
      }
      this.#waiting.splice(this.#waiting.indexOf(sequence), 1);
      this.#running.push(sequence);
    }
  }

  #makeRoom(count: number): boolean {
    const paused = this.#running.filter((sequence) => sequence.paused);
    const obtainable = this.#blocks.freedBy(paused.map(({ blockIds }) => blockIds));
    if (count > this.#blocks.freeCount + obtainable) return false;
    while (count > this.#blocks.freeCount) {
      const victim = paused.pop();
      if (victim === undefined) return false;
      this.#preempt(victim);
    }
    return true;
  }

  /** Blocks for `count` more tokens; takes them from younger sequences where none are free. */
  #reserve(sequence: Sequence, count: number, entries: readonly StepEntry[]): boolean {
    if (!this.#running.includes(sequence)) return false;
    while (!this.#cache.grow(sequence, sequence.computed + count)) {
      const victim = this.#victim(sequence, entries);
      if (victim === undefined) return false;
      this.#preempt(victim);
    }
    return true;
  }

  /** The youngest sequence behind `sequence` that is not in this step; one that is paused first. */
  #victim(sequence: Sequence, entries: readonly StepEntry[]): Sequence | undefined {
    const inStep = new Set(entries.map((entry) => entry.sequence));
    const own = this.#running.indexOf(sequence);
    const others = this.#running.filter(
      (other, index) =>
        other.blockIds.length > 0 && !inStep.has(other) && (index > own || (other.paused && index !== own)),
    );
    return others.findLast((other) => other.paused) ?? others.at(-1);
  }

  #preempt(sequence: Sequence): void {
    this.#running = this.#running.filter((other) => other !== sequence);
    this.#cache.release(sequence);
    this.#waiting.unshift(sequence);
  }
}

function isReady(sequence: Sequence): boolean {
  return !sequence.paused;
}
