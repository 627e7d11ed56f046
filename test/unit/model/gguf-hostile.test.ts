/**
 * GGUF files that lie. Each class of failure that other loaders had must end in a ModelFormatError with the offset and
 * the reason, within a second and 64 MB.
 */
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ModelFormatError } from '../../../src/errors.js';
import { readGgufHeader } from '../../../src/model/gguf/reader.js';
import { readGgufModel } from '../../../src/model/gguf/split.js';
import { bytes, type GgufBytes } from './gguf-bytes.js';
import { newFile, newFolder, thrownBy } from './tiny-checkpoint.js';

/** Of processor time: the machine may be busy with other tests. */
const MAX_US = 1e6;
const MAX_BYTES = 64 * 1024 * 1024;

/** The error of reading a file, with the limits of time and memory checked. */
function refused(path: string, read: (path: string) => unknown = readGgufHeader) {
  globalThis.gc?.();
  const before = process.memoryUsage().rss;
  const start = process.cpuUsage();
  const error = thrownBy(() => read(path));
  const { user, system } = process.cpuUsage(start);
  expect(user + system).toBeLessThan(MAX_US);
  expect(process.memoryUsage().rss - before).toBeLessThan(MAX_BYTES);
  expect(error).toBeInstanceOf(ModelFormatError);
  expect(error.file).toContain('gguf');
  return error;
}

/** One f32 tensor `t` of 8 values at offset 0 behind the given metadata. */
const withTensor = (out: GgufBytes, dims: (number | bigint)[] = [8], type = 0, offset: number | bigint = 0) =>
  out.tensor('t', dims, type, offset).pad(32).raw(Buffer.alloc(64));

const one = (type = 3) => bytes().head(1, 0, type);
const key = (name: string) => bytes().head(0, 1).text(name);

const HOSTILE: [why: string, file: GgufBytes, message: RegExp][] = [
  ['an empty file', bytes(), /magic: expected 4 bytes, got the end of the file after 0 \(at byte 0\)/],
  ['another format', bytes().raw(Buffer.from('PK\x03\x04')).u64(0), /magic: expected the bytes "GGUF"/],
  ['nothing after the magic', bytes().raw(Buffer.from('GGUF')), /version: expected 4 bytes/],
  [
    'version 1',
    bytes().head(0, 0, 1),
    /version: expected GGUF version 2 or 3, little-endian, got 1 \(at byte 4\)/,
  ],
  ['version 4', bytes().head(0, 0, 4), /version/],
  ['a big-endian file', bytes().head(0, 0, 0x03000000), /got a big-endian file/],
  ['2^64-1 tensors', bytes().head(2n ** 64n - 1n, 0), /number of tensors: expected a number below 2\^53/],
  ['2^40 tensors', bytes().head(2n ** 40n, 0), /number of tensors: expected at most 32768/],
  [
    'more tensors than bytes',
    bytes().head(1000, 0),
    /number of tensors: expected what fits into the \d+ bytes left/,
  ],
  ['2^63 keys', bytes().head(0, 2n ** 63n), /number of metadata keys/],
  ['more keys than bytes', bytes().head(0, 1000), /number of metadata keys: expected what fits/],
  [
    'a key longer than the file',
    bytes().head(0, 1).u64(60000).raw(Buffer.alloc(20)),
    /key 0: expected 60000 bytes, got the end/,
  ],
  [
    'a key of 2^63 bytes',
    bytes()
      .head(0, 1)
      .u64(2n ** 63n)
      .raw(Buffer.alloc(20)),
    /key 0: expected a number below/,
  ],
  [
    'a key of 1 MB',
    bytes()
      .head(0, 1)
      .u64(1 << 20)
      .raw(Buffer.alloc(1 << 21)),
    /a string of at most 65535 bytes/,
  ],
  ['an empty key', key('').type('u8').u8(1).u32(0), /key 0: expected a name/],
  [
    'a key that is not UTF-8',
    bytes().head(0, 1).text(Buffer.of(0xff, 0xfe)).type('u8').u8(1).u32(0),
    /UTF-8 text/,
  ],
  [
    'a key twice',
    bytes().head(0, 2).key('a', 'u32').u32(1).key('a', 'u32').u32(2),
    /a: expected each key once, got it twice/,
  ],
  ['an unknown value type', key('a').u32(13).u64(0), /a: expected a value type from 0 to 12, got 13/],
  ['a bool of 2', key('a').type('bool').u8(2).u32(0), /a bool of 0 or 1, got 2/],
  [
    'a string longer than the file',
    key('a').type('string').u64(5000).u32(0),
    /a: expected 5000 bytes, got the end/,
  ],
  [
    'a string of 2^62 bytes',
    key('a')
      .type('string')
      .u64(2n ** 62n),
    /below 2\^53/,
  ],
  ['a string of 100 MB', key('a').type('string').u64(100e6), /a string of at most 8388608 bytes/],
  [
    'a list of unknown type',
    key('a').type('array').u32(99).u64(1).u64(0),
    /an entry type from 0 to 12, got 99/,
  ],
  [
    'a list of lists',
    key('a').type('array').type('array').u64(1).u32(0).u64(0),
    /a list of plain values, got a list of lists/,
  ],
  [
    'a list of 2^61 numbers',
    key('a')
      .type('array')
      .type('u64')
      .u64(2n ** 61n),
    /below 2\^53/,
  ],
  [
    'a list of 2^50 numbers',
    key('a')
      .type('array')
      .type('u32')
      .u64(2n ** 50n),
    /a list that fits into the \d+ bytes left/,
  ],
  [
    'a list of 2^50 strings',
    key('a')
      .type('array')
      .type('string')
      .u64(2n ** 50n),
    /a list that fits/,
  ],
  ['a list that ends early', key('a').type('array').type('string').u64(1).u64(9), /a: expected 9 bytes/],
  ['an alignment of 0', key('general.alignment').type('u32').u32(0), /a power of two up to 1048576, got 0/],
  ['an alignment of 24', key('general.alignment').type('u32').u32(24), /a power of two .* got 24/],
  [
    'an alignment of 2^31',
    key('general.alignment')
      .type('u32')
      .u32(2 ** 31),
    /a power of two/,
  ],
  [
    'an alignment of another type',
    key('general.alignment').type('u64').u64(32),
    /general\.alignment: expected a u32, got a value of u64/,
  ],
  [
    'an alignment that is a text',
    key('general.alignment').type('string').text('32'),
    /got a value of string/,
  ],
  ['a tensor without a name', one().tensor('', [8], 0, 0).pad(32).raw(Buffer.alloc(32)), /expected a name/],
  ['a tensor name of 1 KB', one().tensor('x'.repeat(1024), [8], 0, 0), /a string of at most 256 bytes/],
  [
    'a tensor twice',
    bytes().head(2, 0).tensor('t', [8], 0, 0).tensor('t', [8], 0, 32).pad(32).raw(Buffer.alloc(64)),
    /each tensor name once/,
  ],
  ['no dimensions', withTensor(one(), []).raw(Buffer.alloc(64)), /1 to 4 dimensions, got 0/],
  ['5 dimensions', withTensor(one(), [1, 1, 1, 1, 1]), /1 to 4 dimensions, got 5/],
  ['2^32-1 dimensions', one().text('t').u32(0xffffffff).raw(Buffer.alloc(64)), /1 to 4 dimensions/],
  ['a dimension of 0', withTensor(one(), [8, 0]), /dimensions of at least 1/],
  ['a dimension of 2^63', withTensor(one(), [2n ** 63n]), /dimension 0 of t: expected a number below 2\^53/],
  ['dimensions that overflow', withTensor(one(), [2n ** 32n, 2n ** 32n]), /fewer than 2\^53 values/],
  [
    'dimensions that wrap to a small product',
    withTensor(one(), [2n ** 40n, 2n ** 40n, 2n ** 40n, 8n]),
    /fewer than 2\^53/,
  ],
  [
    'a tensor larger than the file',
    withTensor(one(), [1 << 20]),
    /fits into the file of \d+ bytes, got 4194304 bytes/,
  ],
  ['a removed type', withTensor(one(), [32], 4), /one of the types f32, .*got type number 4/],
  ['a type of the future', withTensor(one(), [8], 1000), /got type number 1000/],
  ['a type without kernels', withTensor(one(), [256], 16), /got iq2_xxs/],
  ['half a block', withTensor(one(), [33], 8), /whole blocks of q8_0, got 33 columns/],
  ['an offset past the end', withTensor(one(), [8], 0, 1 << 20), /values within the file of \d+ bytes/],
  ['an offset of 2^63', withTensor(one(), [8], 0, 2n ** 63n), /offset of t: expected a number below/],
  ['an offset that is not aligned', withTensor(one(), [8], 0, 4), /an offset that 32 divides, got 4/],
  [
    'two tensors in one place',
    bytes().head(2, 0).tensor('a', [16], 0, 0).tensor('b', [8], 0, 32).pad(32).raw(Buffer.alloc(64)),
    /b: expected values of its own, got an overlap with a/,
  ],
];

describe('a GGUF file with', () => {
  it.each(HOSTILE)('%s is refused with place and reason', (_why, file, message) => {
    const error = refused(newFile('model.gguf', file.build()));
    expect(error.message).toMatch(message);
    expect(error.offset).toBeTypeOf('number');
  });

  it('a million empty strings, keys or tensors stays within the limits', () => {
    const strings = bytes()
      .head(0, 1)
      .text('a')
      .type('array')
      .type('string')
      .u64(4_000_000)
      .raw(Buffer.alloc(32_000_000));
    expect(refused(newFile('strings.gguf', strings.build())).message).toMatch(/fewer entries in the lists/);
    const most = bytes().head(0, 2).text('a').type('array').type('string').u64(900_000);
    for (let i = 0; i < 900; i++)
      most.raw(Buffer.concat(Array.from({ length: 1000 }, () => bytes().text('ab').build())));
    most.text('b').type('array').type('string').u64(1).text('c');
    expect(refused(newFile('most.gguf', most.build())).message).toMatch(/fewer entries in the lists/);
    const keys = bytes().head(0, 8_192).raw(Buffer.alloc(32_000_000));
    expect(refused(newFile('keys.gguf', keys.build())).message).toMatch(/key 0/);
    const lists = bytes().head(0, 30);
    for (let i = 0; i < 30; i++)
      lists.text(`k${i}`).type('array').type('u8').u64(2_000_000).raw(Buffer.alloc(2_000_000));
    expect(refused(newFile('lists.gguf', lists.build())).message).toMatch(
      /a header of at most 33554432 bytes/,
    );
  });

  it('any prefix of a real file is refused', () => {
    const whole = readFileSync('test/fixtures/gguf/granitemoe.gguf');
    const path = newFile('prefix.gguf', whole);
    for (let length = 0; length < whole.length; length += length < 200 ? 1 : 331) {
      writeFileSync(path, whole.subarray(0, length));
      expect(
        thrownBy(() => readGgufHeader(path)),
        `${length} bytes`,
      ).toBeInstanceOf(ModelFormatError);
    }
  });
});

describe('a split model', () => {
  const part = (number: number, of = 3) => `split-0000${number}-of-0000${of}.gguf`;
  function parts(change: (folder: string) => void): string {
    const folder = newFolder();
    for (const number of [1, 2, 3])
      copyFileSync(join('test/fixtures/gguf', part(number)), join(folder, part(number)));
    change(folder);
    return join(folder, part(1));
  }

  it.each<[string, (folder: string) => void, RegExp]>([
    ['a truncated part', (folder) => truncateSync(join(folder, part(2)), 120), /split-00002.*expected/],
    [
      'a part cut in its values',
      (folder) => truncateSync(join(folder, part(3)), 170),
      /within the file of 170 bytes/,
    ],
    [
      'a part in the wrong place',
      (folder) => copyFileSync(join(folder, part(3)), join(folder, part(2))),
      /split\.no: expected 1/,
    ],
    [
      'a part twice',
      (folder) => copyFileSync(join(folder, part(1)), join(folder, part(3))),
      /split\.no: expected 2.*got 0/,
    ],
  ])('with %s is refused', (_why, change, message) => {
    expect(refused(parts(change), readGgufModel).message).toMatch(message);
  });

  it('without one of its parts is told which', () => {
    const folder = newFolder();
    copyFileSync(join('test/fixtures/gguf', part(1)), join(folder, part(1)));
    const error = refused(join(folder, part(1)), readGgufModel);
    expect(error).toMatchObject({ code: 'ERR_MODEL_NOT_FOUND', file: join(folder, part(2)) });
  });

  it('opened at a later part is told where it starts', () => {
    const path = join('test/fixtures/gguf', part(2));
    const error = refused(path, readGgufModel);
    expect(error.message).toMatch(/the first part of the model, got part 2/);
    expect(error.hint).toContain(part(1));
  });

  it('under another name is refused', () => {
    const path = join(newFolder(), 'other.gguf');
    copyFileSync(join('test/fixtures/gguf', part(1)), path);
    expect(refused(path, readGgufModel).message).toMatch(
      /NAME-00001-of-00003\.gguf for the first of 3 parts/,
    );
  });
});
