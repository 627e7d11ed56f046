/**
 * Ranges of code points as sequences of byte ranges in UTF-8, for a grammar that is matched byte by byte (the
 * construction of R. Cox, "Regular Expression Matching in the Wild", 2010). Called by graph.ts.
 */
import type { CharRange } from './expression.js';

export type ByteRange = readonly [first: number, last: number];

/** Byte sequences of all characters of the range; surrogates, which UTF-8 cannot hold, are left out. */
export function utf8Sequences([first, last]: CharRange): ByteRange[][] {
  if (first > last) return [];
  if (first <= 0xdfff && last >= 0xd800)
    return [...utf8Sequences([first, 0xd7ff]), ...utf8Sequences([0xe000, last])];
  for (const longest of [0x7f, 0x7ff, 0xffff]) {
    if (first <= longest && last > longest)
      return [...utf8Sequences([first, longest]), ...utf8Sequences([longest + 1, last])];
  }
  if (last <= 0x7f) return [[[first, last]]];
  for (let shift = 6; shift <= 18; shift += 6) {
    const low = 2 ** shift - 1;
    if ((first & ~low) === (last & ~low)) continue;
    if ((first & low) !== 0)
      return [...utf8Sequences([first, first | low]), ...utf8Sequences([(first | low) + 1, last])];
    if ((last & low) !== low)
      return [...utf8Sequences([first, (last & ~low) - 1]), ...utf8Sequences([last & ~low, last])];
  }
  const ends = utf8Bytes(last);
  return [utf8Bytes(first).map((byte, index) => [byte, ends[index] ?? byte] as const)];
}

function utf8Bytes(point: number): number[] {
  return [...new TextEncoder().encode(String.fromCodePoint(point))];
}
