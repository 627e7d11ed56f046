/**
 * The safetensors reader on good files and on every lie a file can tell: each must end in a ModelFormatError that
 * names the file, the place, what was expected and what was there.
 */
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ModelFormatError } from '../../../src/errors.js';
import { readSafetensors } from '../../../src/model/safetensors.js';
import { readSafetensorsFolder } from '../../../src/model/safetensors-folder.js';
import { newFile, newFolder, rawSafetensors, safetensorsBytes, thrownBy } from './tiny-checkpoint.js';

const FILE = 'model.safetensors';

function entry(shape: unknown, offsets: unknown, dtype: unknown = 'F32'): string {
  return JSON.stringify({ dtype, shape, data_offsets: offsets });
}

describe('a valid file', () => {
  it('gives dtype, shape and absolute offsets', () => {
    const path = newFile(
      FILE,
      safetensorsBytes([
        { name: 'a', shape: [2, 3] },
        { name: 'b', shape: [], dtype: 'BF16' },
        { name: 'empty', shape: [0, 7] },
        { name: 'c', shape: [5], dtype: 'F16' },
      ]),
    );
    const tensors = readSafetensors(path, 3);
    const start = tensors[0]?.offsetBytes ?? 0;
    expect(tensors).toEqual([
      { name: 'a', dtype: 'f32', shape: [2, 3], file: 3, offsetBytes: start, sizeBytes: 24 },
      { name: 'b', dtype: 'bf16', shape: [], file: 3, offsetBytes: start + 24, sizeBytes: 2 },
      { name: 'empty', dtype: 'f32', shape: [0, 7], file: 3, offsetBytes: start + 26, sizeBytes: 0 },
      { name: 'c', dtype: 'f16', shape: [5], file: 3, offsetBytes: start + 26, sizeBytes: 10 },
    ]);
  });

  it('may pad its header with spaces and order it differently from the values', () => {
    const header = `{"late":${entry([1], [4, 8])},"early":${entry([1], [0, 4])}}   `;
    expect(readSafetensors(newFile(FILE, rawSafetensors(header, 8))).map((tensor) => tensor.name)).toEqual([
      'late',
      'early',
    ]);
  });
});

const length = (value: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
};

const BAD_FILES: [why: string, bytes: Uint8Array, field: string, message: RegExp][] = [
  ['an empty file', Buffer.alloc(0), 'header', /at least 8 bytes, got a file of 0 bytes/],
  ['a file that ends in the length', Buffer.alloc(5), 'header', /at least 8 bytes/],
  [
    'a header longer than the file',
    Buffer.concat([length(100n), Buffer.from('{}')]),
    'header',
    /fits into the file/,
  ],
  [
    'a header of 2^63 bytes',
    Buffer.concat([length(2n ** 63n), Buffer.from('{}')]),
    'header',
    /at most 100000000/,
  ],
  ['a header of no bytes', length(0n), 'header', /starts with \{, got nothing/],
  ['a header that is a list', rawSafetensors('[]', 0), 'header', /starts with \{/],
  ['a header that is not JSON', rawSafetensors('{"a":', 0), '', /expected JSON/],
  ['a header that is not UTF-8', rawSafetensors('{}', 0).fill(0xff, 9), 'header', /UTF-8/],
  [
    'a name twice',
    rawSafetensors(`{"a":${entry([1], [0, 4])},"a":${entry([1], [4, 8])}}`, 8),
    'header',
    /"a" twice/,
  ],
  [
    'a key of an entry twice',
    rawSafetensors('{"a":{"dtype":"F32","dtype":"F16"}}', 0),
    'header',
    /"dtype" twice/,
  ],
  [
    'metadata of numbers',
    rawSafetensors('{"__metadata__":{"a":1}}', 0),
    '__metadata__',
    /an object of strings/,
  ],
  ['an entry that is a list', rawSafetensors('{"a":[]}', 0), 'a', /an object with dtype/],
  [
    'an unknown dtype',
    rawSafetensors(`{"a":${entry([1], [0, 4], 'F33')}}`, 4),
    'a.dtype',
    /F32, F16, BF16, got F33/,
  ],
  ['a dtype that is a number', rawSafetensors(`{"a":${entry([1], [0, 4], 7)}}`, 4), 'a.dtype', /got 7/],
  ['no shape', rawSafetensors('{"a":{"dtype":"F32","data_offsets":[0,4]}}', 4), 'a.shape', /got nothing/],
  [
    'a negative dimension',
    rawSafetensors(`{"a":${entry([-1], [0, 4])}}`, 4),
    'a.shape',
    /whole numbers >= 0/,
  ],
  ['a broken dimension', rawSafetensors(`{"a":${entry([1.5], [0, 6])}}`, 6), 'a.shape', /whole numbers/],
  [
    'a dimension beyond 2^53',
    rawSafetensors(`{"a":${entry([2 ** 60], [0, 4])}}`, 4),
    'a.shape',
    /whole numbers/,
  ],
  [
    'a shape that overflows',
    rawSafetensors(`{"a":${entry([2 ** 50, 2 ** 50], [0, 4])}}`, 4),
    'a.data_offsets',
    /bytes/,
  ],
  [
    'three offsets',
    rawSafetensors(`{"a":${entry([1], [0, 4, 8])}}`, 8),
    'a.data_offsets',
    /two whole numbers/,
  ],
  [
    'an end before its begin',
    rawSafetensors(`{"a":${entry([1], [4, 0])}}`, 4),
    'a.data_offsets',
    /begin <= end/,
  ],
  [
    'an end past the file',
    rawSafetensors(`{"a":${entry([2], [0, 8])}}`, 4),
    'a.data_offsets',
    /within the 4 bytes/,
  ],
  [
    'fewer bytes than the shape',
    rawSafetensors(`{"a":${entry([2], [0, 4])}}`, 4),
    'a.data_offsets',
    /8 bytes for f32/,
  ],
  [
    'an overlap',
    rawSafetensors(`{"a":${entry([2], [0, 8])},"b":${entry([1], [4, 8])}}`, 8),
    'b',
    /an overlap with a/,
  ],
  [
    'a hole',
    rawSafetensors(`{"a":${entry([1], [0, 4])},"b":${entry([1], [8, 12])}}`, 12),
    'b',
    /a hole after a/,
  ],
  ['a hole at the start', rawSafetensors(`{"a":${entry([1], [4, 8])}}`, 8), 'a', /a hole after the header/],
  [
    'bytes after the last tensor',
    rawSafetensors(`{"a":${entry([1], [0, 4])}}`, 9),
    '',
    /a file of \d+ bytes/,
  ],
];

describe('a file that lies', () => {
  it.each(BAD_FILES)('%s', (_why, bytes, field, message) => {
    const path = newFile(FILE, bytes);
    const error = thrownBy(() => readSafetensors(path));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toMatch(message);
    expect(error).toMatchObject({ file: path, field });
    expect(error.expected).not.toBe('');
  });

  it('says that another 8-bit float is known but not supported, and what helps', () => {
    const error = thrownBy(() =>
      readSafetensors(newFile(FILE, rawSafetensors(`{"a":${entry([4], [0, 4], 'F8_E5M2')}}`, 4))),
    );
    expect(error).toMatchObject({ code: 'ERR_MODEL_UNSUPPORTED', field: 'a.dtype' });
    expect(error.hint).toMatch(/bfloat16/);
  });

  it('names the byte where a truncated file ends', () => {
    const path = newFile(FILE, safetensorsBytes([{ name: 'a', shape: [100] }]));
    truncateSync(path, 200);
    expect(thrownBy(() => readSafetensors(path))).toMatchObject({ field: 'a.data_offsets' });
  });

  it('refuses a folder in the place of a file', () => {
    expect(thrownBy(() => readSafetensors(newFolder())).message).toMatch(/expected a file/);
  });
});

describe('shards', () => {
  function shards(weightMap: unknown, files: Record<string, { name: string; shape: number[] }[]>): string {
    const folder = newFolder();
    writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap }));
    for (const [name, tensors] of Object.entries(files))
      writeFileSync(join(folder, name), safetensorsBytes(tensors));
    return folder;
  }
  const [one, two] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
  const a = { name: 'a', shape: [2] };
  const b = { name: 'b', shape: [3] };

  it('are read as one index', () => {
    const index = readSafetensorsFolder(shards({ a: one, b: two }, { [one]: [a], [two]: [b] }));
    expect(index.count).toBe(2);
    expect(index.sizeBytes).toBe(20);
    expect(index.get('b')).toMatchObject({ file: 1, sizeBytes: 12 });
    expect(index.files[1]).toMatch(/model-00002-of-00002/);
  });

  it.each([
    ['a missing shard', { a: one, b: two }, { [one]: [a] }, /expected a readable safetensors file/],
    [
      'a tensor that no shard holds',
      { a: one, b: two },
      { [one]: [a], [two]: [] },
      /expected the tensor in .*got it in no/,
    ],
    ['a tensor in another shard', { a: two, b: one }, { [one]: [a], [two]: [b] }, /expected the tensor in/],
    ['a tensor that is not listed', { a: one }, { [one]: [a, b] }, /does not list/],
    ['a tensor in two shards', { a: one, b: two }, { [one]: [a], [two]: [a, b] }, /each tensor name once/],
    ['a path that leads out', { a: '../secret.safetensors' }, {}, /in the same folder, got \.\.\/secret/],
    ['an absolute path', { a: '/etc/x.safetensors' }, {}, /in the same folder/],
    ['a file name that is a number', { a: 1 }, {}, /the name of a \.safetensors file/],
    ['an empty map', {}, {}, /expected tensors/],
    ['a map that is a list', [one], {}, /an object from tensor names/],
  ])('%s is refused', (_why, weightMap, files, message) => {
    const error = thrownBy(() => readSafetensorsFolder(shards(weightMap, files)));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toMatch(message);
  });

  describe('codes and scales in two tensors', () => {
    type Raw = [name: string, dtype: string, shape: number[]];
    const WIDTHS: Record<string, number> = { U8: 1, F8_E4M3: 1, F32: 4 };

    function openRaw(tensors: readonly Raw[]) {
      let offset = 0;
      const header = tensors.map(([name, dtype, shape]) => {
        const begin = offset;
        offset += shape.reduce((a, b) => a * b, WIDTHS[dtype] ?? 0);
        return `${JSON.stringify(name)}:${entry(shape, [begin, offset], dtype)}`;
      });
      const folder = newFolder();
      writeFileSync(join(folder, FILE), rawSafetensors(`{${header.join(',')}}`, offset));
      return readSafetensorsFolder(folder);
    }

    it('are one tensor: MXFP4, and float8 with a factor for each block', () => {
      const tensors = openRaw([
        ['w_blocks', 'U8', [2, 6, 3, 16]],
        ['w_scales', 'U8', [2, 6, 3]],
        ['q', 'F8_E4M3', [130, 5]],
        ['q_scale_inv', 'F32', [2, 1]],
      ]);
      expect(tensors.count).toBe(2);
      const [w, q] = [tensors.get('w'), tensors.get('q')];
      const start = w?.offsetBytes ?? 0;
      expect(w).toMatchObject({ dtype: 'mxfp4', shape: [2, 6, 96], sizeBytes: 576 + 36 });
      expect(w?.scales).toEqual({ encoding: 'mxfp4_split', file: 0, offsetBytes: start + 576 });
      expect(q).toMatchObject({ dtype: 'bf16', shape: [130, 5], sizeBytes: 650 + 8 });
      expect(q?.scales).toEqual({ encoding: 'fp8_blocks', file: 0, offsetBytes: start + 576 + 36 + 650 });
    });

    it.each<[string, Raw[], string, RegExp]>([
      ['float8 without factors', [['q', 'F8_E4M3', [4, 4]]], 'q', /F8_E4M3 only as codes with scales/],
      ['bytes without scales', [['w_blocks', 'U8', [1, 16]]], 'w_blocks', /NAME_blocks with NAME_scales/],
      ['bytes under another name', [['w', 'U8', [3]]], 'w', /U8 only as codes with scales/],
      [
        'factors of another number of blocks',
        [
          ['q', 'F8_E4M3', [130, 5]],
          ['q_scale_inv', 'F32', [1, 1]],
        ],
        'q_scale_inv',
        /expected F32 \[2,1\].*got F32 \[1,1\]/,
      ],
      [
        'scales of another shape',
        [
          ['w_blocks', 'U8', [6, 3, 16]],
          ['w_scales', 'U8', [6, 4]],
        ],
        'w_scales',
        /expected U8 \[6,3\].*got U8 \[6,4\]/,
      ],
      [
        'blocks of another width',
        [
          ['w_blocks', 'U8', [6, 3, 8]],
          ['w_scales', 'U8', [6, 3]],
        ],
        'w_blocks',
        /blocks of 16 bytes/,
      ],
    ])('%s are refused', (_why, tensors, field, message) => {
      const error = thrownBy(() => openRaw(tensors));
      expect(error).toBeInstanceOf(ModelFormatError);
      expect(error).toMatchObject({ field });
      expect(error.message).toMatch(message);
    });
  });

  it('says what a folder without weights holds instead', () => {
    const folder = newFolder();
    writeFileSync(join(folder, 'pytorch_model.bin'), 'x');
    const error = thrownBy(() => readSafetensorsFolder(folder));
    expect(error).toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' });
    expect(error.hint).toMatch(/pytorch_model\.bin/);
  });
});
