/**
 * Text models inside models of more kinds: their configuration lies under `text_config`, and their tensors have a
 * prefix more. Called by registry.ts and open-model.ts; families see a plain configuration.
 */
import { ConfigReader } from '../config.js';
import type { JsonObject } from '../json-file.js';
import type { WeightNames } from '../weight-names.js';
import type { Wrapper } from './family.js';

/** Keys that the outer configuration may hold for the text model. */
const OUTER_KEYS = [
  'quantization_config',
  'dtype',
  'torch_dtype',
  'eos_token_id',
  'tie_word_embeddings',
] as const;

/**
 * The text model's configuration, with what only the outer one says; `config` itself where nothing is nested. Throws
 * ModelFormatError where the two disagree about tied embeddings.
 */
export function textConfig(config: ConfigReader): ConfigReader {
  const text = config.object('text_config');
  if (text === undefined) return config;
  const tied = 'tie_word_embeddings';
  const [outer, inner] = [config.find(tied), text.find(tied)];
  if (outer !== undefined && inner !== undefined && outer.value !== inner.value) {
    throw config.contradiction(tied, outer.value, text.label(tied), inner.value);
  }
  const values: JsonObject = {};
  const labels: Record<string, string> = {};
  for (const key of OUTER_KEYS) {
    const found = config.find(key);
    if (found !== undefined) values[key] = found.value;
  }
  for (const key of text.keys()) {
    const found = text.find(key);
    // A null in the text part says nothing against the outer value, but its key tells that the default is not meant.
    if (found === undefined && values[key] !== undefined) continue;
    values[key] = found?.value ?? null;
    labels[key] = text.label(key);
  }
  return new ConfigReader(values, config.file, labels);
}

/** A family's tensor names inside the wrapping model. */
export function wrappedNames(names: WeightNames, { rename: [from, to] }: Wrapper): WeightNames {
  const renamed = (name: string) => (name.startsWith(from) ? to + name.slice(from.length) : name);
  const wrapped: WeightNames = {};
  for (const role of Object.keys(names) as (keyof WeightNames)[]) {
    wrapped[role] = names[role]?.map((name) =>
      typeof name === 'string' ? renamed(name) : { ...name, tensor: renamed(name.tensor) },
    );
  }
  return wrapped;
}
