/**
 * What a model family is: how its configuration becomes a ModelSpec, and under which names its weights lie in
 * checkpoints of the Hub and in GGUF files. Each family is one small file beside this one; registry.ts lists them.
 */
import type { ConfigReader } from '../config.js';
import type { GgufFamily } from '../gguf/family.js';
import type { ModelSpec } from '../model-spec.js';
import type { WeightName, WeightNames } from '../weight-names.js';

export type { WeightName, WeightNames };

export type Family = {
  /** `model_type` in config.json, also ModelSpec.architecture. */
  modelType: string;
  /** The class in `architectures` of config.json. */
  className: string;
  /** Throws ModelFormatError. */
  readSpec(config: ConfigReader): ModelSpec;
  hubNames: WeightNames;
  /** For families that GGUF files exist of. */
  gguf?: GgufFamily;
};
