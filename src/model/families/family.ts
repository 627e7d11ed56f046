/**
 * What a model family is: how its configuration becomes a ModelSpec, and under which names its weights lie in
 * checkpoints of the Hub and in GGUF files. Each family is one small file beside this one; registry.ts lists them.
 */
import type { ConfigReader } from '../config.js';
import type { GgufFamily } from '../gguf/family.js';
import type { ModelSpec, WeightRole } from '../model-spec.js';

/**
 * A tensor name with `{layer}` and `{expert}` as placeholders. Without `{expert}` a weight of an expert is that
 * expert's block of a stacked tensor [numExperts, rows, cols]. `part` takes the n-th of `parts` equal row blocks,
 * for tensors that hold gate and up behind one another; interleaved, every `parts`-th row from the n-th on, for those
 * that hold them row by row.
 */
export type WeightName = string | { tensor: string; part: number; parts: number; interleaved?: boolean };

/** All names a weight may have; the first that the checkpoint holds is taken. */
export type WeightNames = Partial<Record<WeightRole, readonly WeightName[]>>;

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
