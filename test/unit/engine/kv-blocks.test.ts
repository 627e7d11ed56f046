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
    blocks.publish(0, 'a');
    const second = [blocks.acquire('a') ?? -1];
    expect(second).toEqual(first);
    blocks.release(first);
    expect(blocks.freeCount).toBe(1);
    blocks.release(second);
    expect(blocks.freeCount).toBe(2);
    expect(() => blocks.release([0])).toThrow('not in use');
    expect(() => blocks.publish(0, 'b')).toThrow('not in use');
  });

  it('keeps what was published until room is needed, the least recently used given up first', () => {
    const blocks = new KvBlocks(4);
    const take = (count: number) => {
      const list: number[] = [];
      expect(blocks.grow(list, count)).toBe(true);
      return list;
    };
    const list = take(3);
    for (const block of list) blocks.publish(block, `key ${block}`);
    blocks.release(list);
    expect(blocks.freeCount).toBe(4);
    const used = [blocks.acquire('key 0') ?? -1];
    expect(used).toEqual([0]);
    // One never held anything; then the end of the list goes before the block it is found through.
    const others = take(2);
    expect(others).toEqual([3, 2]);
    expect(blocks.acquire('key 2')).toBeUndefined();
    expect(blocks.grow([], 2)).toBe(false);
    blocks.release(used);
    expect([...take(1), blocks.acquire('key 1'), blocks.acquire('key 0')]).toEqual([1, undefined, 0]);
  });

  it('lets the first block stand for a content that two hold', () => {
    const blocks = new KvBlocks(2);
    const lists: [number[], number[]] = [[], []];
    for (const list of lists) blocks.grow(list, 1);
    for (const [block = -1] of lists) blocks.publish(block, 'same');
    blocks.release(lists[1]);
    expect(blocks.acquire('same')).toBe(0);
    expect(blocks.freeCount).toBe(1);
  });

  it('tells what releasing lists would free, shared blocks counted once and only without other users', () => {
    const blocks = new KvBlocks(6);
    const lists: number[][] = [[], [], []];
    for (const [index, list] of lists.entries()) blocks.grow(list, index + 1);
    blocks.publish(0, 'first');
    lists[1]?.push(blocks.acquire('first') ?? -1);
    expect(blocks.freedBy([])).toBe(0);
    expect(blocks.freedBy([lists[0] ?? []])).toBe(0);
    expect(blocks.freedBy([lists[1] ?? []])).toBe(2);
    expect(blocks.freedBy(lists.slice(0, 2))).toBe(3);
    expect(blocks.freedBy(lists)).toBe(6);
  });

  it('never gives one block to two sequences, and gets all back, published or not', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(3), fc.nat(6)), { maxLength: 60 }), (actions) => {
        const blocks = new KvBlocks(10);
        const lists: number[][] = [[], [], [], []];
        let published = 0;
        for (const [owner, count] of actions) {
          const list = lists[owner] as number[];
          if (count === 0) blocks.release(list);
          else blocks.grow(list, Math.max(list.length, count));
          if (count === 2)
            for (const block of list) blocks.publish(block, `${owner} ${block} ${++published}`);
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
