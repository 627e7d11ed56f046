/**
 * Which blocks of the KV cache are free. A block holds the keys and values of KV_BLOCK_TOKENS positions of one
 * sequence over all layers; native owns its bytes, this file only its number. Blocks count their users, so that
 * sequences with the same beginning may share the full ones. Called by the batcher.
 */

/** Positions of one block; kKvBlockTokens of kernels/ops.h. */
export const KV_BLOCK_TOKENS = 32;

/** Blocks that hold `tokens` positions. */
export function blocksFor(tokens: number): number {
  return Math.ceil(tokens / KV_BLOCK_TOKENS);
}

export class KvBlocks {
  readonly total: number;
  #free: number[];
  #users: Uint32Array;

  constructor(total: number) {
    this.total = total;
    this.#users = new Uint32Array(total);
    // Taken from the end: low numbers first, so that a lone sequence walks through memory upwards.
    this.#free = Array.from({ length: total }, (_, index) => total - 1 - index);
  }

  get freeCount(): number {
    return this.#free.length;
  }

  /** Appends blocks to `blockIds` until there are `count`. False, and nothing taken, where too few are free. */
  grow(blockIds: number[], count: number): boolean {
    if (count - blockIds.length > this.#free.length) return false;
    while (blockIds.length < count) {
      const block = this.#free.pop();
      if (block === undefined) return false;
      this.#users[block] = 1;
      blockIds.push(block);
    }
    return true;
  }

  /** One more user of a block in use. */
  share(block: number): void {
    const users = this.#users[block];
    if (!users) throw new RangeError(`KV block ${block} is not in use`);
    this.#users[block] = users + 1;
  }

  /** One user less for each block of the list, which is emptied; blocks without users become free. */
  release(blockIds: number[]): void {
    for (const block of blockIds.splice(0).reverse()) {
      const users = this.#users[block];
      if (!users) throw new RangeError(`KV block ${block} is not in use`);
      this.#users[block] = users - 1;
      if (users === 1) this.#free.push(block);
    }
  }
}
