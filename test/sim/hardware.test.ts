import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { MEASURED_RATES, measuredLayers, splitShapes } from '../../bench/validate/measured-layers.mjs';
import { fittedExpertUs } from '../../src/sim/gpu-times.js';
import { gpuById, readHardware, unitById } from '../../src/sim/hardware.js';
import { denseBytes, expertsBytes, kvBytes, modelByName, modelNames } from '../../src/sim/models.js';

const folder = fileURLToPath(new URL('../../src/sim/hardware/', import.meta.url));

describe('the law of GPU expert times', () => {
  const { expertFit } = readHardware();
  const layers = measuredLayers();
  const { fitted, checked } = splitShapes(layers);
  const errorOf = (layer: (typeof layers)[number]) => {
    const parameters = layer.matrices * layer.hiddenSize * layer.intermediateSize;
    const timeUs = layer.loads.reduce(
      (sum, { tokens, experts }) =>
        sum + experts * fittedExpertUs(expertFit, MEASURED_RATES, 2 * parameters, 2 * parameters, tokens),
      expertFit.floorUs,
    );
    return Math.abs(timeUs / layer.measuredUs - 1);
  };
  const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

  it('was fitted to other shapes than it is checked on, and its file says which', () => {
    const said = JSON.parse(readFileSync(`${folder}gpu-expert-fit.json`, 'utf8'));
    expect(said.fittedShapes).toEqual(fitted);
    expect(said.checkedShapes).toEqual(checked);
    expect(fitted.filter((shape) => checked.includes(shape))).toEqual([]);
    expect(new Set(layers.map(({ shape }) => shape)).size).toBe(fitted.length + checked.length);
  });

  it('misses measured layers of shapes it has not seen by at most 12% at the median', () => {
    const unseen = layers.filter(({ shape }) => checked.includes(shape));
    expect(unseen.length).toBeGreaterThan(600);
    expect(median(unseen.map(errorOf))).toBeLessThanOrEqual(0.12);
    for (const shape of checked) {
      const own = unseen.filter((layer) => layer.shape === shape).map(errorOf);
      expect(median(own), shape).toBeLessThanOrEqual(0.12);
    }
  });
});

describe('hardware descriptions', () => {
  const copy = mkdtempSync(path.join(tmpdir(), 'nearmoe-hardware-'));
  afterAll(() => rmSync(copy, { recursive: true }));

  it('name a source for each number', () => {
    expect(readHardware().gpus.length).toBeGreaterThan(5);
    for (const file of ['gpus.json', 'ndp-units.json', 'kernels-and-host.json']) {
      const numbersOf = (value: unknown): unknown[] => {
        if (typeof value !== 'object' || value === null) return typeof value === 'number' ? [value] : [];
        if ('source' in value) return [];
        return Object.values(value).flatMap(numbersOf);
      };
      expect(numbersOf(JSON.parse(readFileSync(folder + file, 'utf8'))), file).toEqual([]);
    }
  });

  it.each([
    [
      'gpus.json',
      '"value": 960,',
      '"value": "fast",',
      /gpus.json: gpus\[0\]\.memoryBandwidthGBs\.value: expected a number/,
    ],
    [
      'gpus.json',
      '"value": 960,',
      '"value": 0,',
      /memoryBandwidthGBs\.value: expected a number >= .*, got 0/,
    ],
    [
      'ndp-units.json',
      '"kind": "cpu"',
      '"kind": "tpu"',
      /units\[1\]\.kind: expected "ndp" or "cpu", got "tpu"/,
    ],
    [
      'ndp-units.json',
      '"value": 0.9,',
      '"value": 1.9,',
      /bandwidthShare\.value: expected a share of at most 1, got 1.9/,
    ],
    ['kernels-and-host.json', '"planUs"', '"plan"', /host\.planUs: expected an object, got nothing/],
    ['gpu-expert-fit.json', '{', '[', /gpu-expert-fit.json: expected JSON/],
  ])('are refused with file, field, expected and got: %s %s', (file, from, to, message) => {
    cpSync(folder, copy, { recursive: true });
    const text = readFileSync(folder + file, 'utf8');
    expect(text).toContain(from);
    writeFileSync(path.join(copy, file), text.replace(from, to));
    expect(() => readHardware(copy)).toThrow(message);
  });

  it('are refused where a file is missing', () => {
    expect(() => readHardware('/nowhere')).toThrow(/nowhere\/kernels-and-host.json: expected a file/);
  });

  it('have names', () => {
    const hardware = readHardware();
    expect(gpuById(hardware, 'rtx5080').hostToDeviceGBs).toBe(56);
    expect(() => gpuById(hardware, 'rtx1')).toThrow(/`gpu` to be one of "rtx5080", /);
    expect(() => unitById(hardware, 'abacus')).toThrow(
      /`unit` to be one of "ndp-dimm", "cpu-ddr5", got "abacus"/,
    );
  });
});

describe('model shapes', () => {
  // Figures computed independently from the Hub configs: one expert, all outside experts, KV values per token and layer.
  it.each([
    ['qwen3-30b-a3b', 9437184, 3081764864, 1024, 6144],
    ['mixtral-8x7b', 352321536, 3210739712, 2048, 256],
    ['deepseek-v2-lite', 17301504, 2623012864, 576, 1664],
    ['qwen1.5-moe-a2.7b', 17301504, 3716808704, 4096, 1440],
    ['olmoe-1b-7b', 12582912, 953155584, 4096, 1024],
    ['phi-3.5-moe', 157286400, 3213885440, 2048, 512],
    ['granite-3.1-3b-a800m', 4718592, 557589504, 1024, 1280],
    ['glm-4.5-air', 34603008, 14389084160, 2048, 5760],
    ['qwen3-235b-a22b', 37748736, 15992881152, 1024, 12032],
    ['ernie-4.5-21b-a3b', 23592960, 2881945600, 1024, 1728],
  ])('%s weighs what its config says', (name, expertBytes, dense, kvValues, experts) => {
    const model = modelByName(name);
    expect(model.expertBytes).toBe(expertBytes);
    expect(expertsBytes(model)).toBe(expertBytes * experts);
    expect(Math.abs(denseBytes(model) / dense - 1)).toBeLessThan(0.001);
    expect(kvBytes(model, 1)).toBe(kvValues * model.layers.length * model.bytesPerDenseWeight);
  });

  it('are all readable', () => {
    for (const name of modelNames()) expect(modelByName(name).layers.length, name).toBeGreaterThan(0);
    expect(() => modelByName('gpt-5')).toThrow(/`model` to be one of /);
  });
});
