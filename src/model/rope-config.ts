/**
 * Reads the rotary embedding's settings in all their spellings: transformers 4 (`rope_theta`, `rope_scaling` with
 * `type` or `rope_type`) and transformers 5 (`rope_parameters`). Called by the families. Frequencies are computed
 * from the result in rope.ts.
 */
import { ConfigReader } from './config.js';
import type { JsonObject } from './json-file.js';
import type { RopeScaling, RopeSpec } from './model-spec.js';

export type RopeDefaults = {
  theta: number;
  headDim: number;
  maxPositions: number;
  /** Share of a head that is rotated, for families in which it may differ from 1. */
  partialRotaryFactor?: number;
  /** Parameters that hold where the config has none. */
  ropeScaling?: JsonObject;
};

/** Throws ModelFormatError for unknown types, missing factors and values that contradict each other. */
export function readRope(config: ConfigReader, defaults: RopeDefaults): RopeSpec {
  return readRopeFrom(config, ropeParameters(config, defaults.ropeScaling), defaults);
}

/** The same from given rope parameters, for families that have several sets. Throws ModelFormatError. */
export function readRopeFrom(
  config: ConfigReader,
  parameters: ConfigReader,
  defaults: RopeDefaults,
): RopeSpec {
  const theta = readTheta(config, parameters, defaults.theta);
  const rotaryDim = readRotaryDim(config, parameters, defaults);
  return {
    style: 'neox',
    rotaryDim,
    theta,
    scaling: readScaling(config, parameters, { ...defaults, rotaryDim }),
  };
}

/** The keys of `rope_parameters` and `rope_scaling`; a file may have both as long as they agree. */
function ropeParameters(config: ConfigReader, fallback: JsonObject = {}): ConfigReader {
  const parameters = config.object('rope_parameters');
  const scaling = config.object('rope_scaling');
  if (parameters === undefined || scaling === undefined) {
    return parameters ?? scaling ?? new ConfigReader(fallback, config.file);
  }
  for (const key of scaling.keys()) {
    const spellings = key === 'type' ? ['type', 'rope_type'] : [key];
    const [a, b] = [parameters.find(spellings), scaling.find(key)];
    if (a !== undefined && b !== undefined && JSON.stringify(a.value) !== JSON.stringify(b.value)) {
      throw config.contradiction(parameters.label(a.key), a.value, scaling.label(key), b.value);
    }
  }
  return parameters;
}

function readTheta(config: ConfigReader, parameters: ConfigReader, fallback: number): number {
  const range = { min: 1 };
  const inner = parameters.has('rope_theta') ? parameters.number('rope_theta', undefined, range) : undefined;
  const outer = config.has('rope_theta') ? config.number('rope_theta', undefined, range) : undefined;
  if (inner !== undefined && outer !== undefined && inner !== outer) {
    throw config.contradiction('rope_theta', outer, parameters.label('rope_theta'), inner);
  }
  return inner ?? outer ?? fallback;
}

/** Values rotated per head: `partial_rotary_factor`, or `rotary_dim` as MiniMax writes it, of the head. */
function readRotaryDim(config: ConfigReader, parameters: ConfigReader, defaults: RopeDefaults): number {
  const { headDim, partialRotaryFactor } = defaults;
  const key = 'partial_rotary_factor';
  // Proportional scaling has that factor in its frequencies.
  if (ropeType(parameters) === 'proportional') return wholeHead(config, headDim);
  const readers = [parameters, config].filter((reader) => reader.has(key));
  const [factor = partialRotaryFactor ?? 1, other = factor] = readers.map((reader) =>
    reader.number(key, undefined, { min: 0, max: 1 }),
  );
  if (factor !== other) throw config.contradiction(parameters.label(key), factor, key, other);
  const told = partialRotaryFactor !== undefined && config.has('rotary_dim');
  if (told && readers.length > 0) {
    const dim = config.integer('rotary_dim', undefined);
    if (dim !== Math.trunc(headDim * factor)) throw config.contradiction(key, factor, 'rotary_dim', dim);
  }
  if (factor !== 1 && partialRotaryFactor === undefined)
    throw (readers[0] ?? config).unsupported(key, '1 (whole heads are rotated)', factor);
  const explicit = told && readers.length === 0;
  const rotaryDim = explicit
    ? config.integer('rotary_dim', undefined, { max: headDim })
    : Math.trunc(headDim * factor);
  if (rotaryDim < 2 || rotaryDim % 2 !== 0) {
    const wrong = explicit ? 'rotary_dim' : factor === 1 ? 'head_dim' : key;
    throw config.unsupported(wrong, 'an even number of rotated values per head', rotaryDim);
  }
  return rotaryDim;
}

function wholeHead(config: ConfigReader, headDim: number): number {
  if (headDim % 2 === 0) return headDim;
  throw config.unsupported('head_dim', 'an even number of rotated values per head', headDim);
}

function ropeType(parameters: ConfigReader): string {
  return parameters.text(['rope_type', 'type'], 'default');
}

function readScaling(
  config: ConfigReader,
  parameters: ConfigReader,
  defaults: RopeDefaults & { rotaryDim: number },
): RopeScaling {
  const type = ropeType(parameters);
  const read = SCALING_READERS[type];
  if (read === undefined) {
    throw parameters.unsupported('rope_type', `one of ${Object.keys(SCALING_READERS).join(', ')}`, type);
  }
  return read(parameters, { config, ...defaults });
}

type ScalingContext = RopeDefaults & { rotaryDim: number; config: ConfigReader };
type ScalingReader = (parameters: ConfigReader, context: ScalingContext) => RopeScaling;

const FACTOR = { min: Number.MIN_VALUE };

function readFactor(parameters: ConfigReader): number {
  return parameters.number('factor', undefined, FACTOR);
}

/** The length before scaling: the config's own key goes before the one among the rope parameters, as in transformers. */
function readOriginalMaxPositions(
  parameters: ConfigReader,
  { config, maxPositions }: ScalingContext,
): number {
  const key = 'original_max_position_embeddings';
  if (config.has(key)) return config.integer(key, undefined);
  return parameters.integer(key, maxPositions);
}

function optionalNumber(parameters: ConfigReader, key: string): number | undefined {
  return parameters.has(key) ? parameters.number(key, undefined, { min: 0 }) : undefined;
}

const readYarn: ScalingReader = (parameters, context) => {
  const originalMaxPositions = readOriginalMaxPositions(parameters, context);
  return {
    type: 'yarn',
    factor: parameters.has('factor') ? readFactor(parameters) : context.maxPositions / originalMaxPositions,
    originalMaxPositions,
    // Zero means the default, as in transformers.
    betaFast: parameters.number('beta_fast', 32) || 32,
    betaSlow: parameters.number('beta_slow', 1) || 1,
    attentionFactor: optionalNumber(parameters, 'attention_factor'),
    mscale: optionalNumber(parameters, 'mscale'),
    mscaleAllDim: optionalNumber(parameters, 'mscale_all_dim'),
    truncate: parameters.flag('truncate', true),
  };
};

const readLongrope: ScalingReader = (parameters, context) => {
  const originalMaxPositions = readOriginalMaxPositions(parameters, context);
  const length = context.rotaryDim / 2;
  return {
    type: 'longrope',
    factor: parameters.has('factor') ? readFactor(parameters) : context.maxPositions / originalMaxPositions,
    originalMaxPositions,
    shortFactor: parameters.positiveNumbers('short_factor', length),
    longFactor: parameters.positiveNumbers('long_factor', length),
    attentionFactor: optionalNumber(parameters, 'attention_factor'),
    shortMscale: optionalNumber(parameters, 'short_mscale'),
    longMscale: optionalNumber(parameters, 'long_mscale'),
  };
};

const readLlama3: ScalingReader = (parameters, context) => {
  const lowFreqFactor = parameters.number('low_freq_factor', undefined, FACTOR);
  const highFreqFactor = parameters.number('high_freq_factor', undefined, FACTOR);
  // Both are the same in Llama 4 Scout: no ramp between.
  if (highFreqFactor < lowFreqFactor) {
    throw parameters.contradiction('low_freq_factor', lowFreqFactor, 'high_freq_factor', highFreqFactor);
  }
  return {
    type: 'llama3',
    factor: readFactor(parameters),
    originalMaxPositions: readOriginalMaxPositions(parameters, context),
    lowFreqFactor,
    highFreqFactor,
  };
};

const SCALING_READERS: Record<string, ScalingReader> = {
  default: () => ({ type: 'default' }),
  linear: (parameters) => ({ type: 'linear', factor: readFactor(parameters) }),
  // The exponent dim / (dim - 2) has no value for heads of two.
  dynamic: (parameters, { config, rotaryDim, maxPositions }) => {
    if (rotaryDim <= 2)
      throw config.unsupported('head_dim', 'more than 2 with dynamic rope scaling', rotaryDim);
    return { type: 'dynamic', factor: readFactor(parameters), originalMaxPositions: maxPositions };
  },
  proportional: (parameters, { rotaryDim }) => ({
    type: 'proportional',
    factor: parameters.number('factor', 1, FACTOR),
    rotatedPairs: Math.floor(
      (parameters.number('partial_rotary_factor', 1, { min: 0, max: 1 }) * rotaryDim) / 2,
    ),
  }),
  yarn: readYarn,
  longrope: readLongrope,
  // The name that Phi models used before it became `longrope`.
  su: readLongrope,
  llama3: readLlama3,
};
