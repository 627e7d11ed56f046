/**
 * Rotary frequencies against those of transformers' modeling_rope_utils.py (test/fixtures/rope.json, made by
 * scripts/goldens/rope_fixtures.py). Each value may differ by 3 float32 roundings: libm's pow and torch's differ in
 * the last bit, and each type adds a few steps.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ModelFormatError } from '../../../src/errors.js';
import { ConfigReader } from '../../../src/model/config.js';
import type { RopeScaling, RopeSpec } from '../../../src/model/model-spec.js';
import { computeFrequencies, Rope } from '../../../src/model/rope.js';
import { readRope } from '../../../src/model/rope-config.js';
import { type Json, thrownBy } from './tiny-checkpoint.js';

type Case = {
  name: string;
  config: { head_dim: number; max_position_embeddings: number; rope_parameters: Json };
  values: { sequenceLength: number; inverseFrequencies: number[]; attentionFactor: number }[];
};
const { cases } = JSON.parse(readFileSync('test/fixtures/rope.json', 'utf8')) as { cases: Case[] };

const RELATIVE_TOLERANCE = 3 * 2 ** -23;

function read(config: Json, maxPositions = 4096, headDim = 32): RopeSpec {
  return readRope(new ConfigReader(config, 'config.json'), { theta: 10000, headDim, maxPositions });
}

describe('frequencies equal those of transformers', () => {
  it.each(cases)('$name', ({ config, values }) => {
    const spec = read(config, config.max_position_embeddings, config.head_dim);
    const rope = new Rope(spec);
    // Backwards too: the frequencies belong to the length, not to the history.
    for (const { sequenceLength, inverseFrequencies, attentionFactor } of [
      ...values,
      ...values.toReversed(),
    ]) {
      const got = rope.at(sequenceLength);
      expect(got.inverseFrequencies.length).toBe(inverseFrequencies.length);
      for (const [i, expected] of inverseFrequencies.entries()) {
        const difference = Math.abs((got.inverseFrequencies[i] ?? Number.NaN) - expected);
        const error = expected === 0 ? difference : difference / expected;
        expect(error, `value ${i} at length ${sequenceLength}`).toBeLessThanOrEqual(RELATIVE_TOLERANCE);
      }
      expect(Math.abs(got.attentionFactor - attentionFactor)).toBeLessThan(1e-7);
    }
  });

  it('covers every scaling type', () => {
    const types = cases.map(({ config }) => config.rope_parameters.rope_type);
    const all: Record<RopeScaling['type'], true> = {
      default: true,
      linear: true,
      dynamic: true,
      yarn: true,
      longrope: true,
      llama3: true,
      proportional: true,
    };
    expect(new Set(types)).toEqual(new Set(Object.keys(all)));
  });
});

describe('Rope', () => {
  it('gives the same object until the frequencies change', () => {
    const dynamic = new Rope(read({ rope_scaling: { type: 'dynamic', factor: 2 } }, 64));
    expect(dynamic.dependsOnLength).toBe(true);
    expect(dynamic.at(10)).toBe(dynamic.at(64));
    expect(dynamic.at(65)).not.toBe(dynamic.at(64));
    const plain = new Rope(read({}));
    expect(plain.dependsOnLength).toBe(false);
    expect(plain.at(1)).toBe(plain.at(4096));
  });

  it("takes Phi's mscales in the place of the computed attention factor, by length", () => {
    const factors = Array.from({ length: 16 }, () => 1);
    const scaling = {
      type: 'su',
      short_factor: factors,
      long_factor: factors,
      short_mscale: 1.25,
      long_mscale: 1.5,
    };
    const spec = read({ rope_scaling: scaling, original_max_position_embeddings: 64 }, 1024);
    expect(computeFrequencies(spec, 64).attentionFactor).toBe(1.25);
    expect(computeFrequencies(spec, 65).attentionFactor).toBe(1.5);
  });
});

describe('reading the config', () => {
  const yarn = { factor: 4, original_max_position_embeddings: 1024 };

  it.each([
    ['type', { rope_theta: 5e4, rope_scaling: { type: 'yarn', ...yarn } }],
    ['rope_type', { rope_theta: 5e4, rope_scaling: { rope_type: 'yarn', ...yarn } }],
    ['both', { rope_theta: 5e4, rope_scaling: { rope_type: 'yarn', type: 'yarn', ...yarn } }],
    ['rope_parameters', { rope_parameters: { rope_type: 'yarn', rope_theta: 5e4, ...yarn } }],
    [
      'both blocks that agree',
      {
        rope_parameters: { rope_type: 'yarn', rope_theta: 5e4, ...yarn },
        rope_scaling: { type: 'yarn', factor: 4 },
      },
    ],
  ])('gives one spec for all spellings: %s', (_name, config) => {
    expect(read(config)).toEqual({
      style: 'neox',
      rotaryDim: 32,
      theta: 5e4,
      scaling: {
        type: 'yarn',
        factor: 4,
        originalMaxPositions: 1024,
        betaFast: 32,
        betaSlow: 1,
        truncate: true,
        attentionFactor: undefined,
        mscale: undefined,
        mscaleAllDim: undefined,
      },
    });
  });

  it('gives no scaling for null and for none', () => {
    expect(read({ rope_scaling: null }).scaling).toEqual({ type: 'default' });
    expect(read({}).theta).toBe(10000);
  });

  it.each<[string, Json, RegExp]>([
    [
      'an unknown type',
      { rope_scaling: { type: 'spiral' } },
      /rope_scaling\.rope_type|one of default, linear/,
    ],
    ['no factor', { rope_scaling: { type: 'linear' } }, /rope_scaling\.factor|factor: expected a number/],
    ['a factor of 0', { rope_scaling: { type: 'linear', factor: 0 } }, /factor: expected a number/],
    [
      'factors of a wrong length',
      { rope_scaling: { type: 'longrope', short_factor: [1] } },
      /a list of 16 numbers/,
    ],
    ['a theta of 0', { rope_theta: 0 }, /rope_theta: expected a number from 1/],
    ['a theta of null in a string', { rope_theta: '1e6' }, /got "1e6"/],
    ['a list', { rope_scaling: [] }, /rope_scaling: expected an object/],
    ['a part of the head', { partial_rotary_factor: 0.5 }, /partial_rotary_factor: expected 1/],
    [
      'two thetas',
      { rope_theta: 1e6, rope_parameters: { rope_theta: 1e4 } },
      /`rope_theta` = 1000000, got 10000/,
    ],
    [
      'two types',
      { rope_scaling: { type: 'linear', factor: 2 }, rope_parameters: { rope_type: 'dynamic', factor: 2 } },
      /rope_scaling\.type: .*`rope_parameters\.rope_type` = "dynamic", got "linear"/,
    ],
    [
      'two spellings in one block',
      { rope_scaling: { type: 'linear', rope_type: 'yarn', factor: 2 } },
      /rope_scaling\.type: .*"yarn", got "linear"/,
    ],
    [
      'a ramp that runs backwards',
      { rope_scaling: { type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor: 1 } },
      /high_freq_factor: .*low_freq_factor` = 4, got 1/,
    ],
  ])('refuses %s', (_why, config, message) => {
    const error = thrownBy(() => read(config));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toMatch(message);
    expect(error.file).toBe('config.json');
  });
});
