/**
 * What sequences hold of the device's caches, and how they share it. Full KV blocks are published by the content of
 * their tokens and all before them, and taken over by sequences that begin in the same way. Where layers have states, a
 * step reads the slot of the state before it and writes another, and a beginning can be taken over only as far as its
 * state was kept: states are published by the same keys where a step ends at a block's border. Called by the batcher,
 * before and after each step.
 */
import { blocksFor, KV_BLOCK_TOKENS, type KvBlocks } from './kv-blocks.js';
import type { Sequence } from './sequence.js';

export type SequenceCacheLimits = {
  /**
   * Computes an answer anew token by token, as it was computed at first: for models whose rotary frequencies change
   * with the length, where a chunk of it would be rotated otherwise.
   */
  recomputeByToken: boolean;
  /** Sequences take over KV blocks that others computed for the same beginning. */
  prefixCache: boolean;
};

export class SequenceCache {
  #blocks: KvBlocks;
  /** Slots for states, kept like blocks; none where the model has no states. */
  #states: KvBlocks;
  #limits: SequenceCacheLimits;
  /** Where others went on from the same beginning, of which no state was kept: worth a stop there. */
  #forks = new WeakMap<Sequence, number>();
  /** Key of the state kept of a sequence's answer. */
  #answers = new WeakMap<Sequence, string>();

  constructor(blocks: KvBlocks, states: KvBlocks, limits: SequenceCacheLimits) {
    this.#blocks = blocks;
    this.#states = states;
    this.#limits = limits;
  }

  /** Room for the sequence's first `tokens` tokens, and for the state after them. False where too little is free. */
  grow({ blockIds, nextStates }: Sequence, tokens: number): boolean {
    if (!this.#blocks.grow(blockIds, blocksFor(tokens))) return false;
    return this.#states.total === 0 || this.#states.grow(nextStates, 1);
  }

  /** The sequence gives back all it has, and begins anew. */
  release(sequence: Sequence): void {
    this.#blocks.release(sequence.blockIds);
    this.#states.release(sequence.states);
    this.#states.release(sequence.nextStates);
    sequence.computed = 0;
  }

  /** What the caches hold was lost. */
  forget(): void {
    this.#blocks.forget();
    this.#states.forget();
  }

  /** Of at most `most` tokens, those that the sequence's next step computes. */
  chunk(sequence: Sequence, most: number): number {
    const { computed, promptLength, pending } = sequence;
    const answer = computed < promptLength ? promptLength - computed : 1;
    const count = Math.min(most, pending, this.#limits.recomputeByToken ? answer : pending);
    if (!this.#keepsStates) return count;
    const fork = this.#forks.get(sequence) ?? 0;
    if (computed < fork && fork < computed + count) return fork - computed;
    // A chunk with more behind it ends at a border, where its state can be kept.
    const whole = KV_BLOCK_TOKENS * Math.floor((computed + count) / KV_BLOCK_TOKENS) - computed;
    return count < pending && whole > 0 ? whole : count;
  }

  /** `count` tokens of the sequence were computed; the blocks that they filled may be shared. */
  advance(sequence: Sequence, count: number): void {
    const first = Math.floor(sequence.computed / KV_BLOCK_TOKENS);
    sequence.advance(count);
    this.#states.release(sequence.states);
    sequence.states.push(...sequence.nextStates.splice(0));
    if (!this.#limits.prefixCache) return;
    const filled = sequence.blockIds.slice(first, Math.floor(sequence.computed / KV_BLOCK_TOKENS));
    for (const [index, block] of filled.entries())
      this.#blocks.publish(block, sequence.blockKey(first + index));
    this.#keepState(sequence);
  }

  /** Takes over the blocks of the sequence's next tokens as far as they are there. */
  adopt(sequence: Sequence): void {
    const first = sequence.blockIds.length;
    const { known, usable } = this.#shared(sequence);
    for (let index = first; index < usable; index++) {
      const block = this.#blocks.acquire(sequence.blockKey(index));
      if (block === undefined) throw new RangeError(`KV block ${index} of a sequence is gone`);
      sequence.adopt(block);
    }
    if (!this.#keepsStates) return;
    if (known > usable) this.#forks.set(sequence, known * KV_BLOCK_TOKENS);
    if (usable === first) return;
    this.#states.release(sequence.states);
    const state = this.#states.acquire(sequence.blockKey(usable - 1));
    if (state === undefined) throw new RangeError(`the state after KV block ${usable - 1} is gone`);
    sequence.states.push(state);
  }

  /**
   * Prefills after taking over what is there, without those whose next block another one computes now: they find it
   * in the cache a step later.
   */
  independent(prefills: readonly Sequence[]): Sequence[] {
    if (!this.#limits.prefixCache) return [...prefills];
    const computing = new Set<string>();
    return prefills.filter((sequence) => {
      this.adopt(sequence);
      if (computing.has(this.#wantedKey(sequence, sequence.blockIds.length) ?? '')) return false;
      const block = Math.floor(sequence.computed / KV_BLOCK_TOKENS);
      if (blocksFor(sequence.length + 1) > block + 1) computing.add(sequence.blockKey(block));
      return true;
    });
  }

  get #keepsStates(): boolean {
    return this.#states.total > 0 && this.#limits.prefixCache;
  }

  /** Blocks of the sequence that are there, and how many of them it can take over. */
  #shared(sequence: Sequence): { known: number; usable: number } {
    let known = sequence.blockIds.length;
    let usable = known;
    if (sequence.computed !== known * KV_BLOCK_TOKENS) return { known, usable };
    for (let key = this.#wantedKey(sequence, known); key !== undefined; ) {
      if (!this.#blocks.has(key)) break;
      known++;
      if (!this.#keepsStates || this.#states.has(key)) usable = known;
      key = this.#wantedKey(sequence, known);
    }
    return { known, usable };
  }

  /** Key of block `index` where it may come from the cache; the last token is always computed, for its logits. */
  #wantedKey(sequence: Sequence, index: number): string | undefined {
    if (!this.#limits.prefixCache || !sequence.reusesBlocks) return undefined;
    return (index + 1) * KV_BLOCK_TOKENS < sequence.length ? sequence.blockKey(index) : undefined;
  }

  /** At a block's border, lets others go on from the state. Of an answer only the latest is kept: states are large. */
  #keepState(sequence: Sequence): void {
    const [state] = sequence.states;
    if (state === undefined || sequence.computed % KV_BLOCK_TOKENS !== 0) return;
    const key = sequence.blockKey(sequence.computed / KV_BLOCK_TOKENS - 1);
    if (this.#states.has(key)) return;
    this.#states.publish(state, key);
    if (sequence.computed <= sequence.promptLength) return;
    this.#states.withdraw(this.#answers.get(sequence) ?? '');
    this.#answers.set(sequence, key);
  }
}
