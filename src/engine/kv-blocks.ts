/**
 * Which blocks of the KV cache are free, used, or kept for their contents. A block holds the keys and values of
 * KV_BLOCK_TOKENS positions of one sequence over all layers; native owns its bytes, this file only its number. A full
 * block may be published under the content hash of its tokens and all before them: sequences with the same beginning
 * share it, and without users it stays until room is needed, least recently used first (the idea of hashed blocks is
 * vLLM's automatic prefix caching; Kwon et al. 2023, arXiv 2309.06180). Called by the batcher.
 */

/** Positions of one block; kKvBlockTokens of kernels/ops.h. */
export const KV_BLOCK_TOKENS = 32;

/** Blocks that hold `tokens` positions. */
export function blocksFor(tokens: number): number {
  return Math.ceil(tokens / KV_BLOCK_TOKENS);
}

/** KV blocks for `kvTokens` positions, at least enough for one sequence of `maxContext`. */
export function kvBlockCount(kvTokens: number, maxContext: number): number {
  return Math.max(blocksFor(kvTokens), blocksFor(maxContext));
}

export class KvBlocks {
  readonly total: number;
  #free: number[];
  #users: Uint32Array;
  #blockOfKey = new Map<string, number>();
  #keyOfBlock = new Map<number, string>();
  /** Published blocks without users, least recently used first. */
  #idle = new Set<number>();

  constructor(total: number) {
    this.total = total;
    this.#users = new Uint32Array(total);
    // Taken from the end: low numbers first, so that a lone sequence walks through memory upwards.
    this.#free = Array.from({ length: total }, (_, index) => total - 1 - index);
  }

  /** Blocks that can be had: empty ones, and published ones that nobody uses. */
  get freeCount(): number {
    return this.#free.length + this.#idle.size;
  }

  /** Appends blocks to `blockIds` until there are `count`. False, and nothing taken, where too few are free. */
  grow(blockIds: number[], count: number): boolean {
    if (count - blockIds.length > this.freeCount) return false;
    while (blockIds.length < count) {
      const block = this.#free.pop() ?? this.#evict();
      if (block === undefined) return false;
      this.#users[block] = 1;
      blockIds.push(block);
    }
    return true;
  }

  /** Lets others find a block in use by what it holds. Where another block holds the same, that one stays known. */
  publish(block: number, key: string): void {
    if (!this.#users[block]) throw new RangeError(`KV block ${block} is not in use`);
    if (this.#blockOfKey.has(key) || this.#keyOfBlock.has(block)) return;
    this.#blockOfKey.set(key, block);
    this.#keyOfBlock.set(block, key);
  }

  /** Whether a block is published under `key`. */
  has(key: string): boolean {
    return this.#blockOfKey.has(key);
  }

  /** Nobody finds the block under `key` any more. */
  withdraw(key: string): void {
    const block = this.#blockOfKey.get(key);
    if (block === undefined) return;
    this.#blockOfKey.delete(key);
    this.#keyOfBlock.delete(block);
    if (this.#idle.delete(block)) this.#free.push(block);
  }

  /** The block published under `key`, with one more user; undefined where there is none. */
  acquire(key: string): number | undefined {
    const block = this.#blockOfKey.get(key);
    if (block === undefined) return undefined;
    this.#idle.delete(block);
    this.#users[block] = (this.#users[block] ?? 0) + 1;
    return block;
  }

  /** One user less for each block of the list, which is emptied; blocks without users become free. */
  release(blockIds: number[]): void {
    // Last block first: it is found through the ones before it, so it must not outlive them.
    for (const block of blockIds.splice(0).reverse()) {
      const users = this.#users[block];
      if (!users) throw new RangeError(`KV block ${block} is not in use`);
      this.#users[block] = users - 1;
      if (users > 1) continue;
      if (this.#keyOfBlock.has(block)) this.#idle.add(block);
      else this.#free.push(block);
    }
  }

  /** What blocks hold was lost: nobody may take over a published one. */
  forget(): void {
    this.#free.push(...this.#idle);
    this.#idle.clear();
    this.#blockOfKey.clear();
    this.#keyOfBlock.clear();
  }

  /** Blocks that releasing all of these lists would free: those without users outside of them. */
  freedBy(lists: readonly (readonly number[])[]): number {
    const inside = new Map<number, number>();
    for (const block of lists.flat()) inside.set(block, (inside.get(block) ?? 0) + 1);
    return [...inside].filter(([block, users]) => this.#users[block] === users).length;
  }

  #evict(): number | undefined {
    const [block] = this.#idle;
    if (block === undefined) return undefined;
    this.#idle.delete(block);
    this.#blockOfKey.delete(this.#keyOfBlock.get(block) ?? '');
    this.#keyOfBlock.delete(block);
    return block;
  }
}
