/**
 * generation_config.json: which ids end a text, and how the model's makers want it sampled. Read by open-model.ts;
 * the engine takes the sampling values as defaults where a request gives none.
 */
import type { ConfigKeys, ConfigReader } from './config.js';

/** Sampling settings of the model's makers; absent where they say nothing. */
export type SamplingDefaults = {
  /** 0 where sampling is switched off. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
};

export type GenerationConfig = {
  /** Ids that end a text, ascending. */
  eosTokenIds: number[];
  sampling: SamplingDefaults;
};

/**
 * End-of-text ids are those of generation_config.json, else of config.json, and always the tokenizer's own.
 * Throws ModelFormatError.
 */
export function readGenerationConfig(
  generation: ConfigReader | undefined,
  config: ConfigReader,
  tokenizerEosId: number | undefined,
): GenerationConfig {
  const listed = (generation && readIds(generation)) ?? readIds(config) ?? [];
  const ids = new Set(tokenizerEosId === undefined ? listed : [...listed, tokenizerEosId]);
  return {
    eosTokenIds: [...ids].sort((a, b) => a - b),
    sampling: generation === undefined ? {} : readSampling(generation),
  };
}

/** One id or a list of them; undefined where the key is absent. */
function readIds(config: ConfigReader): number[] | undefined {
  const found = config.find('eos_token_id');
  if (found === undefined) return undefined;
  const ids = Array.isArray(found.value) ? found.value : [found.value];
  if (!ids.every((id) => Number.isInteger(id) && id >= 0)) {
    throw config.error(found.key, 'a token id or a list of them', found.value);
  }
  return ids as number[];
}

function readSampling(config: ConfigReader): SamplingDefaults {
  if (!config.flag('do_sample', false)) return { temperature: 0, ...repetitionPenalty(config) };
  return {
    temperature: optional(config, 'temperature', 0, 100) ?? 1,
    topK: optional(config, 'top_k', 0, 2 ** 31 - 1) ?? 50,
    topP: optional(config, 'top_p', Number.MIN_VALUE, 1),
    minP: optional(config, 'min_p', 0, 1),
    ...repetitionPenalty(config),
  };
}

function repetitionPenalty(config: ConfigReader): SamplingDefaults {
  return { repetitionPenalty: optional(config, 'repetition_penalty', Number.MIN_VALUE, 100) };
}

function optional(config: ConfigReader, keys: ConfigKeys, min: number, max: number): number | undefined {
  return config.has(keys) ? config.number(keys, undefined, { min, max }) : undefined;
}
