/** A vocabulary of all bytes and of pieces that cross the places where JSON changes its state: for these tests. */

import { seededRandom } from '../../../src/engine/sampler.js';
import { Constraints } from '../../../src/grammar/constraint.js';
import type { ResponseFormat } from '../../../src/grammar/response-format.js';

const PIECES = [
  ...[
    '{"',
    '"}',
    '":',
    '": ',
    '","',
    '", "',
    '"]',
    '["',
    '[]',
    '{}',
    '}}',
    '},{',
    '\n  ',
    '": "',
    '":"',
    '":[',
    ']}',
  ],
  ...[
    'true',
    'false',
    'null',
    'the',
    ' and',
    'name',
    'age',
    '\\"',
    '\\n',
    '\\u00',
    '12',
    '100',
    '0.',
    '.5',
    '-1',
    'e+',
  ],
  ...['ä', '漢', '😀', 'é"', '😀", "', 'a@', 'b.com', '2024-', '-01', 'T1', '00:', 'aaaaaaaa', '          '],
];
export const EOS = 0;
const bytes = [
  new Uint8Array(0),
  ...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
  ...PIECES.map((piece) => new TextEncoder().encode(piece)),
  // As a token of its own that says nothing: a special one.
  new Uint8Array(0),
];
export const VOCABULARY_SIZE = bytes.length;

export const bytesOf = (id: number) => bytes[id] ?? new Uint8Array(0);

export function toyConstraints(droppedSpaces: number | undefined = 0): Constraints {
  return new Constraints({ vocabSize: VOCABULARY_SIZE, eosIds: [EOS], bytesOf, droppedSpaces });
}

export function allowedIds(mask: Uint32Array): number[] {
  return Array.from({ length: VOCABULARY_SIZE }, (_, id) => id).filter(
    (id) => ((mask[id >> 5] ?? 0) >>> (id & 31)) & 1,
  );
}

const PATIENCE = 40;

/** A text of random tokens under the format; after PATIENCE tokens those that begin with one of `ending` are preferred. */
export function randomText(
  constraints: Constraints,
  format: ResponseFormat,
  seed: number,
  ending = '"}]',
): string {
  const random = seededRandom(seed);
  const constraint = constraints.create(format, true);
  if (constraint === undefined) throw new Error('no constraint');
  const text: number[] = [];
  for (let count = 0; !constraint.isOver; count++) {
    if (count > 20_000) throw new Error(`no end: ${Buffer.from(text).toString().slice(0, 200)}`);
    let ids = allowedIds(constraint.mask());
    if (ids.includes(EOS) !== constraint.isComplete)
      throw new Error('the end is allowed where the text is incomplete');
    if (ids.includes(EOS) && (count > PATIENCE || ids.length === 1)) break;
    ids = ids.filter((id) => id !== EOS);
    const closing = ids.filter((id) => ending.includes(String.fromCharCode(bytesOf(id)[0] ?? 0)));
    if (count > PATIENCE && closing.length > 0) ids = closing;
    const id = ids[Math.floor(random() * ids.length)] ?? 0;
    constraint.accept(id);
    text.push(...bytesOf(id));
  }
  return new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(text));
}

/** Whether the constraint allows the text byte by byte, and its end there. */
export function admits(constraints: Constraints, format: ResponseFormat, text: string): boolean {
  const constraint = constraints.create(format, true);
  for (const byte of new TextEncoder().encode(text)) {
    if (constraint === undefined || !allowedIds(constraint.mask()).includes(1 + byte)) return false;
    constraint.accept(1 + byte);
  }
  return constraint?.isComplete ?? false;
}
