/**
 * Inverse frequencies of rotary embeddings for a sequence length, in float32 steps like transformers'
 * modeling_rope_utils.py, so that angles agree at long positions. Asked by the engine once per sequence and step;
 * native multiplies positions by the frequencies and cos and sin by the attention factor.
 * Sources: YaRN (Peng et al. 2023, arXiv 2309.00071), LongRoPE (Ding et al. 2024, arXiv 2402.13753).
 */
import type { RopeScaling, RopeSpec } from './model-spec.js';

export type RopeFrequencies = {
  /** [rotaryDim / 2], radians per position. Shared: do not write into it. */
  inverseFrequencies: Float32Array;
  /** Multiplies cos and sin. */
  attentionFactor: number;
};

const f32 = Math.fround;

/**
 * Frequencies of one RopeSpec by sequence length. `sequenceLength` is the highest position of the whole prompt (or of
 * the sequence so far in decode) plus one, also while a chunk of the prompt is prefilled: dynamic and longrope scaling
 * would otherwise rotate the chunks of one prompt differently. The same object comes back while nothing changes.
 */
export class Rope {
  readonly spec: RopeSpec;
  #last: RopeFrequencies;
  #lastKey: number;

  constructor(spec: RopeSpec) {
    this.spec = spec;
    this.#lastKey = lengthKey(spec.scaling, 1);
    this.#last = computeFrequencies(spec, 1);
  }

  /** Whether frequencies change with the length. */
  get dependsOnLength(): boolean {
    return this.spec.scaling.type === 'dynamic' || this.spec.scaling.type === 'longrope';
  }

  at(sequenceLength: number): RopeFrequencies {
    const key = lengthKey(this.spec.scaling, sequenceLength);
    if (key !== this.#lastKey) {
      this.#last = computeFrequencies(this.spec, sequenceLength);
      this.#lastKey = key;
    }
    return this.#last;
  }
}

/** Lengths with one key have the same frequencies. */
function lengthKey(scaling: RopeScaling, sequenceLength: number): number {
  if (scaling.type === 'dynamic') return Math.max(sequenceLength, scaling.originalMaxPositions);
  if (scaling.type === 'longrope') return sequenceLength > scaling.originalMaxPositions ? 1 : 0;
  return 0;
}

export function computeFrequencies(spec: RopeSpec, sequenceLength: number): RopeFrequencies {
  const { scaling, theta, rotaryDim: dim } = spec;
  switch (scaling.type) {
    case 'default':
      return { inverseFrequencies: plain(theta, dim), attentionFactor: 1 };
    case 'linear':
      return { inverseFrequencies: plain(theta, dim).map((f) => f / scaling.factor), attentionFactor: 1 };
    case 'proportional':
      return { inverseFrequencies: proportional(theta, dim, scaling), attentionFactor: 1 };
    case 'dynamic':
      return {
        inverseFrequencies: plain(dynamicTheta(theta, dim, scaling, sequenceLength), dim),
        attentionFactor: 1,
      };
    case 'yarn':
      return { inverseFrequencies: yarn(theta, dim, scaling), attentionFactor: yarnAttentionFactor(scaling) };
    case 'longrope':
      return longrope(theta, dim, scaling, sequenceLength);
    case 'llama3':
      return { inverseFrequencies: plain(theta, dim).map((f) => llama3(f, scaling)), attentionFactor: 1 };
  }
}

/** theta ** (2i / dim), each step rounded to float32. */
function powers(theta: number, dim: number): Float32Array {
  return Float32Array.from({ length: dim / 2 }, (_, i) => theta ** f32((2 * i) / dim));
}

function plain(theta: number, dim: number): Float32Array {
  return powers(theta, dim).map((power) => 1 / power);
}

function proportional(
  theta: number,
  dim: number,
  { factor, rotatedPairs }: Extract<RopeScaling, { type: 'proportional' }>,
): Float32Array {
  return plain(theta, dim).map((frequency, i) => (i < rotatedPairs ? frequency / factor : 0));
}

/** NTK-aware scaling: beyond the trained length the base grows with the sequence. */
function dynamicTheta(
  theta: number,
  dim: number,
  { factor, originalMaxPositions }: Extract<RopeScaling, { type: 'dynamic' }>,
  sequenceLength: number,
): number {
  const length = Math.max(sequenceLength, originalMaxPositions);
  const stretch = f32(f32(f32(factor * length) / originalMaxPositions) - (factor - 1));
  return f32(theta * f32(stretch ** (dim / (dim - 2))));
}

type YarnScaling = Extract<RopeScaling, { type: 'yarn' }>;

function yarn(theta: number, dim: number, scaling: YarnScaling): Float32Array {
  const { factor, originalMaxPositions, betaFast, betaSlow, truncate } = scaling;
  const correctionDim = (rotations: number) =>
    (dim * Math.log(originalMaxPositions / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let low = correctionDim(betaFast);
  let high = correctionDim(betaSlow);
  if (truncate) {
    low = Math.floor(low);
    high = Math.ceil(high);
  }
  low = Math.max(low, 0);
  high = Math.min(high, dim - 1);
  if (low === high) high += 0.001; // a ramp of width 0 has no slope
  return powers(theta, dim).map((power, i) => {
    const ramp = Math.min(Math.max(f32(f32(i - low) / f32(high - low)), 0), 1);
    const extrapolated = f32(1 - ramp);
    return f32(f32(1 / f32(factor * power)) * f32(1 - extrapolated)) + f32(f32(1 / power) * extrapolated);
  });
}

function yarnAttentionFactor({ factor, attentionFactor, mscale, mscaleAllDim }: YarnScaling): number {
  if (attentionFactor !== undefined) return attentionFactor;
  const scaleBy = (weight: number) => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  return mscale && mscaleAllDim ? scaleBy(mscale) / scaleBy(mscaleAllDim) : scaleBy(1);
}

/** Phi's own mscales, where given, take the place of the computed attention factor. */
function longrope(
  theta: number,
  dim: number,
  scaling: Extract<RopeScaling, { type: 'longrope' }>,
  sequenceLength: number,
): RopeFrequencies {
  const { factor, originalMaxPositions } = scaling;
  const isLong = sequenceLength > originalMaxPositions;
  const factors = isLong ? scaling.longFactor : scaling.shortFactor;
  const computed = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalMaxPositions));
  const mscale = isLong ? scaling.longMscale : scaling.shortMscale;
  return {
    inverseFrequencies: powers(theta, dim).map((power, i) => 1 / f32(f32(factors[i] ?? Number.NaN) * power)),
    attentionFactor: mscale ?? scaling.attentionFactor ?? computed,
  };
}

function llama3(frequency: number, scaling: Extract<RopeScaling, { type: 'llama3' }>): number {
  const { factor, originalMaxPositions, lowFreqFactor, highFreqFactor } = scaling;
  const wavelength = f32((2 * Math.PI) / frequency);
  if (wavelength < originalMaxPositions / highFreqFactor) return frequency;
  if (wavelength > originalMaxPositions / lowFreqFactor) return f32(frequency / factor);
  if (highFreqFactor === lowFreqFactor) return frequency;
  const smooth = f32(
    f32(f32(originalMaxPositions / wavelength) - lowFreqFactor) / (highFreqFactor - lowFreqFactor),
  );
  return f32(f32(f32(f32(1 - smooth) * frequency) / factor) + f32(smooth * frequency));
}
