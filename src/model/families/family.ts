/**
 * What a model family is: how its configuration becomes a ModelSpec, and under which names its weights lie in
 * checkpoints of the Hub and in GGUF files. Each family is one small file beside this one; registry.ts lists them.
 */
import type { ConfigReader } from '../config.js';
import type { GgufFamily } from '../gguf/family.js';
import type { ModelSpec } from '../model-spec.js';
import type { WeightName, WeightNames } from '../weight-names.js';

export type { WeightName, WeightNames };

/** A model of more kinds than text whose text part is a family of ours: `text_config` and tensors under a prefix. */
export type Wrapper = {
  /** `model_type` of the outer configuration. */
  modelType: string;
  className: string;
  /** Beginning of the text model's tensor names, and what stands in its place. */
  rename: readonly [from: string, to: string];
  /** Beginnings of the names of tensors that text does without. */
  unusedPrefixes: readonly string[];
};

export type Family = {
  /** `model_type` in config.json, also ModelSpec.architecture. */
  modelType: string;
  /** The class in `architectures` of config.json. */
  className: string;
  /** What checkpoints of this class call themselves besides: names of their own, or from before the class had one. */
  otherModelTypes?: readonly string[];
  /** Throws ModelFormatError. */
  readSpec(config: ConfigReader): ModelSpec;
  hubNames: WeightNames;
  /** Where checkpoints hold the family inside a larger model. */
  wrapper?: Wrapper;
  /** Beginnings of the names of tensors that checkpoints may hold beside those of the family. */
  unusedPrefixes?: readonly string[];
  /** For families that GGUF files exist of. */
  gguf?: GgufFamily;
};
