/**
 * What the engine and the native side know of a model: shapes and kinds of parts, no file names.
 * Built by a family (src/model/families) from config.json or GGUF metadata, given to native once.
 * Names follow the Hub's config keys. A layer is described by parts, so a new family needs no new branch here.
 */
import type { DTypeName } from './dtypes.js';
import type { RecurrentSpec } from './recurrent-spec.js';

export type NormSpec = { kind: 'rms' | 'layer'; eps: number };

export type RopeStyle = 'neox' | 'interleaved';

/** One set of rotary frequencies; layers refer to it by index (a model may have several). */
export type RopeSpec = {
  style: RopeStyle;
  /** Values rotated per head, even, <= headDim. */
  rotaryDim: number;
  theta: number;
  scaling: RopeScaling;
};

export type RopeScaling =
  | { type: 'default' }
  | { type: 'linear'; factor: number }
  /** Gemma's: the first pairs turn, at the frequencies that whole heads would have, and the others stand still. */
  | { type: 'proportional'; factor: number; rotatedPairs: number }
  | { type: 'dynamic'; factor: number; originalMaxPositions: number }
  | {
      type: 'yarn';
      factor: number;
      originalMaxPositions: number;
      betaFast: number;
      betaSlow: number;
      attentionFactor?: number;
      mscale?: number;
      mscaleAllDim?: number;
      truncate: boolean;
    }
  | {
      type: 'longrope';
      factor: number;
      originalMaxPositions: number;
      shortFactor: number[];
      longFactor: number[];
      attentionFactor?: number;
      shortMscale?: number;
      longMscale?: number;
    }
  | {
      type: 'llama3';
      factor: number;
      originalMaxPositions: number;
      lowFreqFactor: number;
      highFreqFactor: number;
    };

/**
 * Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): queries and keys have a rotated part and one that is not,
 * and keys and values are projected up from one compressed row per position, which is all that the KV cache holds.
 */
export type LatentSpec = {
  /** Width of the compressed query; 0 where queries are projected at once. */
  queryRank: number;
  /** Width of the compressed key and value. */
  keyValueRank: number;
  nopeHeadDim: number;
  ropeHeadDim: number;
  valueHeadDim: number;
};

export type AttentionSpec = {
  /**
   * 'mla' has `latent`, headDim = nopeHeadDim + ropeHeadDim, numKvHeads 1 and no q/k norm, bias, clip or window; 'none' is
   * NO_ATTENTION: the layer has `recurrent` in its place.
   */
  kind: 'gqa' | 'mla' | 'none';
  latent?: LatentSpec;
  numHeads: number;
  numKvHeads: number;
  headDim: number;
  /**
   * Norm on q and k: none, per head (weight [headDim], 'head-unit' without one) or over the full projection (weight
   * [heads * headDim]).
   */
  qkNorm: 'none' | 'head' | 'full' | 'head-unit';
  /** The same on v, per head and without a weight. */
  valueNorm?: boolean;
  /** Values are the key projection, before its norm and rotation; there is no value matrix. */
  keysAsValues?: boolean;
  qkvBias: boolean;
  outputBias: boolean;
  /** Clamp q, k, v to [-clip, clip] after projection; 0 = off. */
  clipQkv: number;
  /** Multiplies q.k. */
  scale: number;
  /** Keys at distance >= window are unseen; 0 = full attention. */
  slidingWindow: number;
  /** Only keys of the query's own run of so many positions are seen (Llama 4); absent = all. */
  chunkSize?: number;
  /** Multiplies queries of position p by 1 + scale * ln(1 + floor((p + 1) / floorScale)) (arXiv 2501.19399). */
  temperature?: { scale: number; floorScale: number };
  /** Per query head an extra logit in the softmax's denominator, which takes weight away from the values. */
  sinks?: boolean;
  /** Each head's output is multiplied by the sigmoid of a projection of its own, as wide as the head. */
  outputGate?: boolean;
  /** Index into ModelSpec.ropes, -1 = no rotary embedding. */
  rope: number;
};

export type RouterSpec = {
  scoring: 'softmax' | 'topk-softmax' | 'sparsemixer' | 'sigmoid' | 'topk-sigmoid';
  /** softmax and sigmoid scoring: renormalise the chosen weights to sum 1. ('topk-' = over the chosen logits only.) */
  normTopkProb: boolean;
  /** sparsemixer: jitter epsilon. */
  jitterEps: number;
  /** A bias on the logits. */
  logitBias?: boolean;
  /** softmax and sigmoid scoring: a bias that decides who is chosen but does not enter the weights (DeepSeek-V3). */
  selectionBias?: boolean;
  /**
   * softmax and sigmoid scoring: experts lie in `count` equal groups, and only the `chosen` groups with the best
   * score (their best expert's, or their two best experts' sum) may be chosen from.
   */
  groups?: { count: number; chosen: number; score: 'max' | 'top-two-sum' };
  /** Multiplies the chosen weights. */
  weightMultiplier?: number;
  /** Multiplies the logits. */
  logitMultiplier?: number;
  /** A learned factor per expert on its weight. */
  expertScale?: boolean;
  /** The weight multiplies what goes into the expert and not what comes out (Llama 4). */
  scalesInput?: boolean;
};

/**
 * 'swiglu_clamped' is gpt-oss's: g = min(gate, 7), output g * sigmoid(1.702 g) * (clamp(up, -7, 7) + 1); the others are
 * act(gate) * up.
 */
export type Activation = 'silu' | 'gelu_tanh' | 'gelu' | 'swiglu_clamped';

export type DenseFfnSpec = {
  kind: 'dense';
  intermediateSize: number;
  activation: Activation;
};

export type MoeFfnSpec = {
  kind: 'moe';
  numExperts: number;
  numExpertsPerTok: number;
  intermediateSize: number;
  activation: Activation;
  /** Biases on gate, up and down of every expert. */
  expertBias?: boolean;
  router: RouterSpec;
  /** A dense expert every token passes; gate 'sigmoid' scales it by sigmoid(w . x). */
  sharedExpert?: { intermediateSize: number; gate: 'none' | 'sigmoid' };
  /**
   * Shared expert, router and experts each normalise the hidden state with a weight of their own, and the outputs of the
   * shared expert and of the experts are normalised before they are added (Gemma 4's dense and sparse branches).
   */
  branchNorms?: boolean;
};

export type LayerSpec = {
  attention: AttentionSpec;
  /** In attention's place: keeps a state of fixed size for each sequence. */
  recurrent?: RecurrentSpec;
  ffn: DenseFfnSpec | MoeFfnSpec;
  /** The outputs of attention and feed-forward part are normalised before they are added to the residual stream. */
  postNorms?: boolean;
  /** A learned factor on the hidden state behind the layer. */
  outputScale?: boolean;
};

export type ModelSpec = {
  architecture: string;
  hiddenSize: number;
  vocabSize: number;
  /** Longest sequence in tokens. */
  maxPositions: number;
  norm: NormSpec;
  ropes: RopeSpec[];
  layers: LayerSpec[];
  tiedEmbeddings: boolean;
  lmHeadBias: boolean;
  /** Multiplies embeddings. */
  embeddingMultiplier: number;
  /** Multiplies each block's output before it is added to the residual stream. */
  residualMultiplier: number;
  /** Multiplies logits (1 / logits_scaling of granite). */
  logitsMultiplier: number;
  /** Logits x become cap * tanh(x / cap); absent = as they are. */
  logitsSoftcap?: number;
};

/** Every weight the native side can hold. Order = number at the JS/native wall; a test compares with native's list. */
export const WEIGHT_ROLES = [
  'embedding',
  'finalNorm',
  'finalNormBias',
  'lmHead',
  'lmHeadBias',
  'attentionNorm',
  'attentionNormBias',
  'query',
  'key',
  'value',
  'queryBias',
  'keyBias',
  'valueBias',
  'queryNorm',
  'keyNorm',
  'output',
  'outputBias',
  'ffnNorm',
  'ffnNormBias',
  'gate',
  'up',
  'down',
  'router',
  'expertGate',
  'expertUp',
  'expertDown',
  'sharedGate',
  'sharedUp',
  'sharedDown',
  'sharedExpertGate',
  'routerBias',
  'routerSelectionBias',
  'attentionSinks',
  'expertGateBias',
  'expertUpBias',
  'expertDownBias',
  'queryDown',
  'latentDown',
  'keyUp',
  'valueUp',
  'attentionPostNorm',
  'ffnPostNorm',
  'sharedPostNorm',
  'expertNorm',
  'expertPostNorm',
  'routerNorm',
  'routerExpertScale',
  'layerScale',
  'outputGate',
  'convKernel',
  'convGate',
  'convInput',
  'deltaBeta',
  'deltaDecay',
  'deltaDecayRate',
  'deltaDecayBias',
  'deltaNorm',
] as const;
export type WeightRole = (typeof WEIGHT_ROLES)[number];

/** A matrix [rows, cols] (a vector has one row) that the model computes with. */
export type WeightNeed = {
  role: WeightRole;
  layer: number;
  expert: number;
  head?: number;
  rows: number;
  cols: number;
};

/** x + 1, for norms whose weights are stored around zero; -e^x. Order = number at the JS/native wall, from 1 on. */
export const TRANSFORMS = ['plus-one', 'negative-exp'] as const;
export type Transform = (typeof TRANSFORMS)[number];

export type WeightShape = [role: WeightRole, rows: number, cols: number];

/**
 * Where a weight comes from: `rows` rows from firstRow on, in runs of `rowBlock` neighbours (1 where it is missing), each
 * run beginning `rowStride` (1) after the one before, of a tensor seen as [prod(leading dims), last dim]; with a stride a
 * vector's values count as rows of one column.
 */
export type WeightSource = {
  role: WeightRole;
  /** -1 where the role belongs to no layer. */
  layer: number;
  /** -1 where the role belongs to no expert. */
  expert: number;
  tensor: string;
  /** Where the role belongs to a head of latent attention. */
  head?: number;
  /** The tensor holds the matrix as [cols, rows]; firstRow counts its rows. */
  transposed?: boolean;
  /** Transposed, where the tensor's rows are `width` long: the columns from firstCol on are the matrix's. */
  firstCol?: number;
  width?: number;
  firstRow: number;
  rowStride?: number;
  rowBlock?: number;
  rows: number;
  cols: number;
  /** Format to which it is quantised while it is loaded; absent: it keeps the tensor's. */
  quantised?: DTypeName;
  /** What becomes of a vector's values while they are loaded. */
  transform?: Transform;
};
