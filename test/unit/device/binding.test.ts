import { describe, expect, it } from 'vitest';
import { binding, type NativeDeviceOptions } from '../../../src/binding.js';
import { TIMED_OPS } from '../../../src/device/device.js';
import { DTYPES, dtypeNumber } from '../../../src/model/dtypes.js';
import { WEIGHT_ROLES } from '../../../src/model/model-spec.js';
import { openSynthetic } from '../../../src/model/synthetic.js';

const OPTIONS: NativeDeviceOptions = {
  units: 1,
  threadsPerUnit: 1,
  tpDegree: 1,
  gpu: 'off',
  gpuThreads: 0,
  pinThreads: false,
  lookahead: false,
  transferBandwidthGBs: 0,
  kvDtype: 'f32',
  maxStepTokens: 8,
  maxLogitRows: 1,
  sliceCols: 1,
  arenaBytes: 1e6,
  isa: '',
};
const FLAGS = new Int32Array(new SharedArrayBuffer(16));
const SPEC = openSynthetic('synthetic:olmoe-1b-7b:q4_0').spec;

describe('lists on both sides of the wall', () => {
  it('name the same weight roles in the same order', () => {
    expect(binding().roles()).toEqual([...WEIGHT_ROLES]);
  });

  it('name the same timed ops in the same order', () => {
    expect(binding().timedOps()).toEqual([...TIMED_OPS]);
  });

  it('give the same numbers, names and block sizes to dtypes', () => {
    binding()
      .dtypes()
      .forEach(({ name, blockCols, blockBytes }, number) => {
        const known = DTYPES.find((dtype) => dtype.name === name);
        expect(known, name).toMatchObject({ name, blockCols, blockBytes });
        expect(known && dtypeNumber(known.name)).toBe(number);
      });
  });

  it('an instruction set runs here exactly if it is listed', () => {
    const { isa, runnableIsas } = binding().cpuInfo();
    expect(runnableIsas).toContain('scalar');
    expect(runnableIsas).toContain(isa);
  });
});

describe('checks of createDevice', () => {
  const refused: [string, () => unknown, RegExp][] = [
    [
      'a spec that is no object',
      () => binding().createDevice(3 as never, OPTIONS, FLAGS),
      /`spec` is not an object/,
    ],
    [
      'a hidden size of 0',
      () => binding().createDevice({ ...SPEC, hiddenSize: 0 }, OPTIONS, FLAGS),
      /spec\.hiddenSize/,
    ],
    ['no layers', () => binding().createDevice({ ...SPEC, layers: [] }, OPTIONS, FLAGS), /spec\.layers/],
    ['0 units', () => binding().createDevice(SPEC, { ...OPTIONS, units: 0 }, FLAGS), /options\.units/],
    [
      'a TP degree above the units',
      () => binding().createDevice(SPEC, { ...OPTIONS, tpDegree: 2 }, FLAGS),
      /tpDegree/,
    ],
    [
      'an unknown instruction set',
      () => binding().createDevice(SPEC, { ...OPTIONS, isa: 'vax' }, FLAGS),
      /vax/,
    ],
    [
      'flags of another type',
      () => binding().createDevice(SPEC, OPTIONS, new Float32Array(4) as never),
      /cancelFlags/,
    ],
  ];
  it.each(refused)('refuse %s', (_, create, message) => {
    expect(create).toThrow(message);
  });

  it('a disposed device refuses every call, and dispose can be called again', () => {
    const device = binding().createDevice(SPEC, OPTIONS, FLAGS);
    device.dispose();
    device.dispose();
    expect(() => device.submitLogits(0)).toThrow(/disposed/);
    expect(() => device.loadWeights(new Float64Array(8), 1)).toThrow(/disposed/);
  });

  it('a step before the weights are there is an error, not a crash', () => {
    const device = binding().createDevice(SPEC, OPTIONS, FLAGS);
    expect(() => device.beginStep(new Int32Array(9), new Float32Array(0))).toThrow(/not there yet/);
    expect(() => device.finishLoad()).toThrow(/missing/);
    device.dispose();
  });
});
