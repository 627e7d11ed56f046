/**
 * How sequences share KV blocks: full blocks are published by the content of their tokens and all before them, and
 * taken over by sequences that begin in the same way. Called by the batcher, before and after each step.
 */
import { blocksFor, KV_BLOCK_TOKENS, type KvBlocks } from './kv-blocks.js';
import type { Sequence } from './sequence.js';

export class PrefixReuse {
  #blocks: KvBlocks;
  #enabled: boolean;

  constructor(blocks: KvBlocks, enabled: boolean) {
    this.#blocks = blocks;
    this.#enabled = enabled;
  }

  /** `count` tokens of the sequence were computed; the blocks that they filled may be shared. */
  advance(sequence: Sequence, count: number): void {
    const first = Math.floor(sequence.computed / KV_BLOCK_TOKENS);
    sequence.advance(count);
    if (!this.#enabled) return;
    const filled = sequence.blockIds.slice(first, Math.floor(sequence.computed / KV_BLOCK_TOKENS));
    for (const [index, block] of filled.entries())
      this.#blocks.publish(block, sequence.blockKey(first + index));
  }

  /** Takes over the blocks of the sequence's next tokens as far as they are there. */
  adopt(sequence: Sequence): void {
    for (let key = this.#wantedKey(sequence); key !== undefined; key = this.#wantedKey(sequence)) {
      const block = this.#blocks.acquire(key);
      if (block === undefined) return;
      sequence.adopt(block);
    }
  }

  /**
   * Prefills after taking over what is there, without those whose next block another one computes now: they find it
   * in the cache a step later.
   */
  independent(prefills: readonly Sequence[]): Sequence[] {
    if (!this.#enabled) return [...prefills];
    const computing = new Set<string>();
    return prefills.filter((sequence) => {
      this.adopt(sequence);
      if (computing.has(this.#wantedKey(sequence) ?? '')) return false;
      const block = Math.floor(sequence.computed / KV_BLOCK_TOKENS);
      if (blocksFor(sequence.length + 1) > block + 1) computing.add(sequence.blockKey(block));
      return true;
    });
  }

  /** Key of the block that would come next from the cache; the last token is always computed, for its logits. */
  #wantedKey(sequence: Sequence): string | undefined {
    const { computed, length, blockIds, reusesBlocks } = sequence;
    if (!this.#enabled || !reusesBlocks || computed !== blockIds.length * KV_BLOCK_TOKENS) return undefined;
    return computed + KV_BLOCK_TOKENS < length ? sequence.blockKey(blockIds.length) : undefined;
  }
}
