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
  ...['\n</parameter>', '</parameter>', '</arg_value>'],
];
export const EOS = 0;
const bytes = [
  new Uint8Array(0),
  ...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
  ...PIECES.map((piece) => new TextEncoder().encode(piece)),
  // Tokens that say nothing.
  ...Array.from({ length: 16 }, () => new Uint8Array(0)),
];
export const VOCABULARY_SIZE = bytes.length;

export const bytesOf = (id: number) => bytes[id] ?? new Uint8Array(0);

/** The last ids are special tokens with these texts. */
export const specialId = (index: number) => VOCABULARY_SIZE - 1 - index;

export function toyConstraints(
  droppedSpaces: number | undefined = 0,
  specials: readonly string[] = [],
): Constraints {
  const specialTexts = new Map(specials.map((text, index) => [specialId(index), text]));
  return new Constraints({ vocabSize: VOCABULARY_SIZE, eosIds: [EOS], bytesOf, specialTexts, droppedSpaces });
}

export function allowedIds(mask: Uint32Array): number[] {
  return Array.from({ length: VOCABULARY_SIZE }, (_, id) => id).filter(
    (id) => ((mask[id >> 5] ?? 0) >>> (id & 31)) & 1,
  );
}

const PATIENCE = 40;

/**
 * A text of random tokens under the format; after PATIENCE tokens those that begin with a sign of `ending`, or are
 * `closing`, are preferred.
 */
export function randomText(
  constraints: Constraints,
  format: ResponseFormat,
  seed: number,
  ending = '"}]',
  { specials = [], closing }: { specials?: readonly string[]; closing?: string } = {},
): string {
  const random = seededRandom(seed);
  const constraint = constraints.create(format, true);
  if (constraint === undefined) throw new Error('no constraint');
  const specialBytes = new Map(specials.map((text, at) => [specialId(at), new TextEncoder().encode(text)]));
  const text: number[] = [];
  for (let count = 0; !constraint.isOver; count++) {
    if (count > 20_000) throw new Error(`no end: ${Buffer.from(text).toString().slice(0, 200)}`);
    let ids = allowedIds(constraint.mask());
    if (ids.includes(EOS) !== constraint.isComplete)
      throw new Error('the end is allowed where the text is incomplete');
    if (ids.includes(EOS) && (count > PATIENCE || ids.length === 1)) break;
    ids = ids.filter((id) => id !== EOS);
    const endings = ids.filter((id) => {
      const token = Buffer.from(bytesOf(id)).toString('latin1');
      return token === closing || ending.includes(token.charAt(0) || ' ');
    });
    if (count > PATIENCE && endings.length > 0) ids = endings;
    const id = ids[Math.floor(random() * ids.length)] ?? 0;
    constraint.accept(id);
    text.push(...(specialBytes.get(id) ?? bytesOf(id)));
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
