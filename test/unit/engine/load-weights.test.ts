import { describe, expect, it } from 'vitest';
import { LOAD_COLUMNS } from '../../../src/binding.js';
import { loadWeights } from '../../../src/engine/load-weights.js';
import { ModelFormatError } from '../../../src/errors.js';
import { DTYPES } from '../../../src/model/dtypes.js';
import { WEIGHT_ROLES, type WeightSource } from '../../../src/model/model-spec.js';
import { TensorIndex } from '../../../src/model/tensor-index.js';

const never = () => false;

/** Two files; `big` is a stacked tensor of four experts with 2 x 3 values each. */
const tensors = new TensorIndex(
  ['/m/a.safetensors', '/m/b.safetensors'],
  [
    { name: 'embed', dtype: 'f32', shape: [4, 3], file: 0, offsetBytes: 100, sizeBytes: 48 },
    { name: 'big', dtype: 'bf16', shape: [4, 2, 3], file: 1, offsetBytes: 1000, sizeBytes: 48 },
    { name: 'huge', dtype: 'f32', shape: [4000, 4000], file: 1, offsetBytes: 2000, sizeBytes: 64e6 },
  ],
);
const weights: WeightSource[] = [
  { role: 'embedding', layer: -1, expert: -1, tensor: 'embed', firstRow: 0, rows: 4, cols: 3 },
  { role: 'expertGate', layer: 0, expert: 0, tensor: 'big', firstRow: 0, rows: 2, cols: 3 },
  {
    role: 'expertGate',
    layer: 0,
    expert: 3,
    tensor: 'big',
    firstRow: 6,
    rows: 2,
    cols: 3,
    quantised: 'q8_0',
  },
  { role: 'query', layer: 1, expert: -1, tensor: 'huge', firstRow: 0, rows: 4000, cols: 4000 },
  { role: 'key', layer: 1, expert: -1, tensor: 'huge', firstRow: 0, rows: 4000, cols: 4000 },
];

class Target {
  files: string[] = [];
  lots: number[][][] = [];
  openFile(path: string): number {
    this.files.push(path);
    return this.files.length - 1 + 10;
  }
  loadWeights(table: Float64Array, count: number): void {
    this.lots.push(
      Array.from({ length: count }, (_, row) => [
        ...table.subarray(row * LOAD_COLUMNS, (row + 1) * LOAD_COLUMNS),
      ]),
    );
  }
}

describe('loadWeights', () => {
  it('hands over rows of the table in lots that end with the layer or when large', () => {
    const target = new Target();
    const progress: number[][] = [];
    loadWeights({ weights, tensors }, target, (...bytes) => progress.push(bytes), never);
    expect(target.files).toEqual(['/m/a.safetensors', '/m/b.safetensors']);
    const gate = WEIGHT_ROLES.indexOf('expertGate');
    expect(target.lots.slice(0, 2)).toEqual([
      [[0, -1, -1, 10, 100, 0, 4, 3, -1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]],
      [
        [gate, 0, 0, 11, 1000, 2, 2, 3, -1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        [
          gate,
          0,
          3,
          11,
          1000 + 6 * 3 * 2,
          2,
          2,
          3,
          DTYPES.findIndex(({ name }) => name === 'q8_0'),
          1,
          0,
          0,
          0,
          0,
          0,
          0,
          0,
          1,
          0,
        ],
      ],
    ]);
    expect(target.lots.map((lot) => lot.length)).toEqual([1, 2, 1, 1]);
    const total = 48 + 24 + 2 * 64e6;
    expect(progress).toEqual([0, 48, 72, 72 + 64e6, total].map((done) => [done, total]));
  });

  it('points at the first value of a part of transposed rows', () => {
    const target = new Target();
    const part: WeightSource = {
      ...{ role: 'expertUp', layer: 0, expert: 1, tensor: 'big', rows: 2, cols: 3 },
      ...{ transposed: true, firstRow: 3, firstCol: 2, width: 4 },
    };
    loadWeights({ weights: [part], tensors }, target, () => undefined, never);
    const row = target.lots[0]?.[0] ?? [];
    expect(row[4]).toBe(1000 + 3 * 4 * 2 + 2 * 2);
    expect([row[10], row[16]]).toEqual([1, 4]);
  });

  it('stops between lots', () => {
    const target = new Target();
    const load = () =>
      loadWeights(
        { weights, tensors },
        target,
        () => undefined,
        () => target.lots.length === 2,
      );
    expect(load).toThrow(expect.objectContaining({ code: 'ERR_ABORTED' }));
    expect(target.lots.length).toBe(2);
  });

  it('names file and tensor of a weight that native refuses', () => {
    const target = new Target();
    target.loadWeights = (_, count) => {
      if (count === 2)
        throw Object.assign(new Error('row 1: not finite'), { code: 'ERR_WEIGHT_VALUE', row: 1 });
    };
    const load = () => loadWeights({ weights, tensors }, target, () => undefined, never);
    expect(load).toThrow(ModelFormatError);
    expect(load).toThrow('/m/b.safetensors: big: expected finite values, got NaN or infinity (at byte 1000)');
    expect(load).toThrow(expect.objectContaining({ code: 'ERR_WEIGHT_VALUE' }));
  });

  it('passes on errors that name no weight', () => {
    const target = new Target();
    target.loadWeights = () => {
      throw new Error('disk is gone');
    };
    expect(() => loadWeights({ weights, tensors }, target, () => undefined, never)).toThrow('disk is gone');
  });
});
