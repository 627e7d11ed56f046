import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LayerAssignment } from '../../../src/device/device.js';
import { decodePlan, PlanEncoder, StepEncoder } from '../../../src/device/step-wire.js';

const assignments = fc
  .record({
    layer: fc.nat(200),
    rows: fc.array(
      fc.tuple(fc.nat(4000), fc.integer({ min: -1, max: 63 }), fc.integer({ min: -1, max: 9999 })),
    ),
  })
  .map(({ layer, rows }): LayerAssignment => {
    const column = (index: number) => Int32Array.from(rows, (row) => row[index] ?? 0);
    const transfers = Int32Array.from(rows, (row) => (row[1] === -1 ? 1 : 0));
    return {
      layer,
      count: rows.length,
      expertIds: column(0),
      places: column(1),
      slots: column(2),
      transfers,
    };
  });

describe('plan wire form', () => {
  it('comes back as it was sent, with one encoder used again and again', () => {
    const encoder = new PlanEncoder();
    fc.assert(
      fc.property(assignments, (assignment) => {
        expect(decodePlan(encoder.encode(assignment))).toEqual(assignment);
      }),
    );
  });

  it('ignores what lies behind `count` in longer arrays', () => {
    const longer = Int32Array.from([4, 9, 77]);
    const plan = new PlanEncoder().encode({
      layer: 1,
      count: 2,
      expertIds: longer,
      places: longer,
      slots: longer,
      transfers: longer,
    });
    expect([...plan]).toEqual([1, 2, 4, 4, 4, 4, 9, 9, 9, 9]);
  });

  it('is refused where the length does not fit', () => {
    expect(() => decodePlan(Int32Array.from([0, 2, 1, 0, -1, 0]))).toThrow(RangeError);
  });
});

describe('step wire form', () => {
  it('lists sequences, then blocks, then tokens, and the rotary frequencies', () => {
    const ropes = [{ inverseFrequencies: Float32Array.from([1, 0.5]), attentionFactor: 2 }];
    const { step, ropes: values } = new StepEncoder().encode({
      sequences: [
        {
          tokenIds: Int32Array.from([7, 8]),
          firstPosition: 31,
          blockIds: [5, 2],
          stateSource: 6,
          stateTarget: 0,
          logitRows: 1,
          cancelSlot: 3,
          ropes,
        },
        {
          tokenIds: Int32Array.from([9]),
          firstPosition: 0,
          blockIds: [4],
          logitRows: 0,
          cancelSlot: 1,
          ropes,
        },
      ],
    });
    expect([...step]).toEqual([2, 3, 2, 31, 1, 3, 2, 7, 1, 1, 0, 0, 1, 1, 0, 0, 5, 2, 4, 7, 8, 9]);
    expect([...values]).toEqual([2, 1, 0.5, 2, 1, 0.5]);
  });

  it('keeps nothing of an earlier, longer step', () => {
    const encoder = new StepEncoder();
    const sequence = { firstPosition: 0, blockIds: [0], logitRows: 1, cancelSlot: 0, ropes: [] };
    encoder.encode({ sequences: [{ ...sequence, tokenIds: new Int32Array(900).fill(3) }] });
    const { step } = encoder.encode({ sequences: [{ ...sequence, tokenIds: Int32Array.from([6]) }] });
    expect([...step]).toEqual([1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 6]);
  });
});
