/**
 * What a model family says about its GGUF files: the architecture's name there, its rotary layout, and which metadata
 * stands for which key of config.json. The common keys are in config.ts; tensor names are the same for all families
 * (names.ts).
 */
import type { JsonObject } from '../json-file.js';
import type { LayerSpec, ModelSpec, RopeStyle } from '../model-spec.js';
import type { GatedDeltaSpec } from '../recurrent-spec.js';
import type { TensorIndex } from '../tensor-index.js';
import type { WeightNames } from '../weight-names.js';
import type { GgufMetadata } from './metadata.js';
import type { MetadataValue } from './writer.js';

/** Vectors of rotary factors, which GGUF keeps as tensors. */
export type RopeTensors = { name: string; values: readonly number[] }[];

/** By the ends of their keys: these take the place of what all families say; undefined takes that out. */
export type OwnMetadata = {
  entries: Readonly<Record<string, MetadataValue | undefined>>;
  /** In the place of those that follow from the first rotary settings. */
  ropeTensors?: RopeTensors;
};

export type GgufFamily = {
  /** `general.architecture`. */
  architecture: string;
  /**
   * 'interleaved' where converters reorder the rows of q and k so that pairs to rotate lie side by side;
   * 'neox' where they leave them as in the Hub's checkpoints.
   */
  ropeStyle: RopeStyle;
  /** How router logits become scores; files that say otherwise in `expert_gating_func` are refused; 'any' where the family reads the key itself. 'softmax' without it. */
  gating?: 'softmax' | 'sigmoid' | 'any';
  /** Some layers have no attention, and say 0 for its key and value heads. */
  hasLayersWithoutHeads?: boolean;
  /** In which order converters lay the value heads of delta nets; as the family has them without it. */
  valueHeadOrder?: GatedDeltaSpec['valueHeadOrder'];
  /** Sizes of heads are not those of common keys; `defaults` gives them. */
  hasOwnHeads?: boolean;
  /** Rotary settings that hold for the family and have no metadata key. */
  rope?: JsonObject;
  /** Names that converters give weights otherwise than names.ts has them first. */
  names?: WeightNames;
  /** Metadata that llama.cpp asks for in files of this family and that says the same in all of them. */
  constants?: Readonly<Record<string, number>>;
  /** Every n-th layer attends without the sliding window; 1, the default: none does. */
  windowPattern?: number;
  /** Further keys of config.json, each with the end of its metadata key: `expert_count` for `ARCH.expert_count`. */
  keys?: Readonly<Record<string, string>>;
  /** How weights of this layer are written, where that is not the first of their names. */
  layerNames?: (layer: LayerSpec) => WeightNames;
  /** What files say in the family's own way, when one is written. Throws ModelFormatError where they cannot. */
  written?: (spec: ModelSpec, path: string) => OwnMetadata;
  /** Config values that follow from tensors or from what converters leave out; `keys` go before them. */
  defaults?: (source: GgufSource) => JsonObject;
};

export type GgufSource = {
  metadata: GgufMetadata;
  tensors: TensorIndex;
  /** Value of `ARCH.suffix` as a whole number; undefined where it is absent. */
  integer: (suffix: string) => number | undefined;
};
