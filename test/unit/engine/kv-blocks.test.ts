import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { blocksFor, KV_BLOCK_TOKENS, KvBlocks } from '../../../src/engine/kv-blocks.js';

describe('KvBlocks', () => {
  it('rounds tokens up to blocks', () => {
    expect([0, 1, KV_BLOCK_TOKENS, KV_BLOCK_TOKENS + 1].map(blocksFor)).toEqual([0, 1, 1, 2]);
  });

  it('takes nothing where too few blocks are free', () => {
    const blocks = new KvBlocks(3);
    const mine: number[] = [];
    expect(blocks.grow(mine, 4)).toBe(false);
    expect(mine).toEqual([]);
    expect(blocks.grow(mine, 3)).toBe(true);
    expect(mine).toEqual([0, 1, 2]);
    expect(blocks.grow([], 1)).toBe(false);
  });

  it('keeps a shared block until its last user is gone', () => {
    const blocks = new KvBlocks(2);
    const first: number[] = [];
    blocks.grow(first, 1);
    const second = [...first];
    blocks.share(0);
    blocks.release(first);
    expect(blocks.freeCount).toBe(1);
    blocks.release(second);
    expect(blocks.freeCount).toBe(2);
    expect(() => blocks.release([0])).toThrow('not in use');
    expect(() => blocks.share(0)).toThrow('not in use');
  });

  it('never gives one block to two sequences, and gets all back', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(3), fc.nat(6)), { maxLength: 60 }), (actions) => {
        const blocks = new KvBlocks(10);
        const lists: number[][] = [[], [], [], []];
        for (const [owner, count] of actions) {
          const list = lists[owner] as number[];
          if (count === 0) blocks.release(list);
          else blocks.grow(list, Math.max(list.length, count));
          const used = lists.flat();
          expect(new Set(used).size).toBe(used.length);
          expect(blocks.freeCount).toBe(10 - used.length);
        }
        for (const list of lists) blocks.release(list);
        expect(blocks.freeCount).toBe(10);
      }),
    );
  });
});
