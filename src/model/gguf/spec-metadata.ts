/**
 * A ModelSpec as GGUF metadata under llama.cpp's keys: the inverse of config.ts. Called by convert.ts. What GGUF has no
 * key for is refused, or, where only our own reader needs it, written under a key of its own.
 */
import { ModelFormatError } from '../../errors.js';
import type {
  AttentionSpec,
  LatentSpec,
  ModelSpec,
  MoeFfnSpec,
  RopeSpec,
  RouterSpec,
} from '../model-spec.js';
import { computeFrequencies } from '../rope.js';
import type { GgufFamily, RopeTensors } from './family.js';
import { ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, ROPE_FREQS } from './names.js';
import type { MetadataValue } from './writer.js';

type Entries = Map<string, MetadataValue>;

export type SpecMetadata = { metadata: Entries; ropeTensors: RopeTensors };

/** `path`: the checkpoint, for errors. Throws ModelFormatError. */
export function specMetadata(spec: ModelSpec, family: GgufFamily, path: string): SpecMetadata {
  const arch = family.architecture;
  const metadata: Entries = new Map([['general.architecture', { type: 'string', value: arch }]]);
  const unsigned = (suffix: string, value: number) =>
    metadata.set(`${arch}.${suffix}`, { type: 'u32', value });
  const float = (suffix: string, value: number) => metadata.set(`${arch}.${suffix}`, { type: 'f32', value });
  const moe = spec.layers.map(({ ffn }) => ffn).find((ffn) => ffn.kind === 'moe');
  const [first] = spec.layers;
  if (moe === undefined || first === undefined) {
    throw unsupported(path, 'layers', 'at least one layer with experts', 'none');
  }
  unsigned('context_length', spec.maxPositions);
  unsigned('embedding_length', spec.hiddenSize);
  unsigned('block_count', spec.layers.length);
  unsigned('vocab_size', spec.vocabSize);
  float('attention.layer_norm_rms_epsilon', spec.norm.eps);
  // Layers with a state have no heads.
  const { attention } = spec.layers.find((layer) => layer.recurrent === undefined) ?? first;
  if (attention.latent === undefined) addAttention(spec, attention, unsigned, float);
  else addLatentAttention(attention, attention.latent, unsigned);
  addExperts(spec, moe, unsigned);
  addRouter(moe.router, unsigned, float);
  metadata.set(`${arch}.expert_weights_norm`, { type: 'bool', value: moe.router.normTopkProb });
  if (moe.router.scoring === 'sparsemixer') float('router_jitter_noise', moe.router.jitterEps);
  if (spec.embeddingMultiplier !== 1) float('embedding_scale', spec.embeddingMultiplier);
  if (spec.residualMultiplier !== 1) float('residual_scale', spec.residualMultiplier);
  if (moe.router.scoring === 'topk-softmax') float('logit_scale', 1 / spec.logitsMultiplier);
  const [rope] = spec.ropes;
  const ropeTensors = rope === undefined ? [] : addRope(metadata, family, rope, spec, path);
  for (const [suffix, value] of Object.entries(family.constants ?? {})) unsigned(suffix, value);
  const own = family.written?.(spec, path);
  if (own === undefined) checkWindows(spec, family, path);
  for (const [suffix, value] of Object.entries(own?.entries ?? {})) {
    if (value === undefined) metadata.delete(`${arch}.${suffix}`);
    else metadata.set(`${arch}.${suffix}`, value);
  }
  return { metadata, ropeTensors: own?.ropeTensors ?? ropeTensors };
}

type Put = (suffix: string, value: number) => void;

function addAttention(spec: ModelSpec, attention: AttentionSpec, unsigned: Put, float: Put): void {
  unsigned('attention.head_count', attention.numHeads);
  unsigned('attention.head_count_kv', attention.numKvHeads);
  unsigned('attention.key_length', attention.headDim);
  unsigned('attention.value_length', attention.headDim);
  unsigned('rope.dimension_count', spec.ropes[attention.rope]?.rotaryDim ?? attention.headDim);
  const window = Math.max(...spec.layers.map((layer) => layer.attention.slidingWindow));
  if (window > 0) unsigned('attention.sliding_window', window);
  if (attention.clipQkv > 0) float('attention.clamp_kqv', attention.clipQkv);
  if (attention.scale !== attention.headDim ** -0.5) float('attention.scale', attention.scale);
}

/** The cached row is one key and value head; the heads' own sizes have keys of their own. */
function addLatentAttention(attention: AttentionSpec, latent: LatentSpec, unsigned: Put): void {
  const { queryRank, keyValueRank, ropeHeadDim, valueHeadDim } = latent;
  unsigned('attention.head_count', attention.numHeads);
  unsigned('attention.head_count_kv', 1);
  if (queryRank > 0) unsigned('attention.q_lora_rank', queryRank);
  unsigned('attention.kv_lora_rank', keyValueRank);
  unsigned('attention.key_length', keyValueRank + ropeHeadDim);
  unsigned('attention.value_length', keyValueRank);
  unsigned('attention.key_length_mla', attention.headDim);
  unsigned('attention.value_length_mla', valueHeadDim);
  unsigned('rope.dimension_count', ropeHeadDim);
}

function addExperts(spec: ModelSpec, moe: MoeFfnSpec, unsigned: Put): void {
  const dense = spec.layers.map(({ ffn }) => ffn).find((ffn) => ffn.kind === 'dense');
  unsigned('feed_forward_length', dense?.intermediateSize ?? moe.intermediateSize);
  unsigned('expert_feed_forward_length', moe.intermediateSize);
  unsigned('expert_count', moe.numExperts);
  unsigned('expert_used_count', moe.numExpertsPerTok);
  if (moe.sharedExpert) {
    const width = moe.sharedExpert.intermediateSize;
    unsigned('expert_shared_feed_forward_length', width);
    unsigned('expert_shared_count', Math.ceil(width / moe.intermediateSize));
  }
  unsigned(
    'leading_dense_block_count',
    spec.layers.findIndex(({ ffn }) => ffn.kind === 'moe'),
  );
}

function addRouter({ scoring, groups, weightMultiplier = 1 }: RouterSpec, unsigned: Put, float: Put): void {
  if (scoring === 'softmax') unsigned('expert_gating_func', 1);
  if (scoring === 'sigmoid') unsigned('expert_gating_func', 2);
  if (weightMultiplier !== 1) float('expert_weights_scale', weightMultiplier);
  if (groups === undefined) return;
  unsigned('expert_group_count', groups.count);
  unsigned('expert_group_used_count', groups.chosen);
}

/** Sets the scaling keys and returns the factors that go into tensors. */
function addRope(
  metadata: Entries,
  { architecture: arch, rope: fixed }: GgufFamily,
  rope: RopeSpec,
  spec: ModelSpec,
  path: string,
): RopeTensors {
  const { scaling } = rope;
  const set = (suffix: string, value: MetadataValue) => metadata.set(`${arch}.rope.${suffix}`, value);
  const float = (suffix: string, value: number) => set(suffix, { type: 'f32', value });
  float('freq_base', rope.theta);
  if (scaling.type === 'default') return [];
  if (scaling.type === 'dynamic' || scaling.type === 'proportional')
    throw unsupported(path, 'rope_scaling', 'any scaling but dynamic and proportional', scaling.type);
  if (scaling.type === 'llama3') return [{ name: ROPE_FREQS, values: frequencyFactors(rope) }];
  if (scaling.type === 'linear') {
    set('scaling.type', { type: 'string', value: 'linear' });
    float('scaling.factor', scaling.factor);
    return [];
  }
  set('scaling.original_context_length', { type: 'u32', value: scaling.originalMaxPositions });
  if (scaling.type === 'yarn') {
    const { truncate, mscale, mscaleAllDim } = scaling;
    if (truncate !== (fixed?.truncate ?? true) || mscale !== mscaleAllDim) {
      const expected = 'yarn truncated as the family has it, and both mscales or none';
      throw unsupported(path, 'rope_scaling', expected, JSON.stringify({ truncate, mscale, mscaleAllDim }));
    }
    if (mscaleAllDim !== undefined) float('scaling.yarn_log_multiplier', 0.1 * mscaleAllDim);
    set('scaling.type', { type: 'string', value: 'yarn' });
    float('scaling.factor', scaling.factor);
    float('scaling.yarn_beta_fast', scaling.betaFast);
    float('scaling.yarn_beta_slow', scaling.betaSlow);
    const own = 0.1 * Math.log(scaling.factor) + 1;
    if (scaling.attentionFactor !== undefined) float('scaling.attn_factor', scaling.attentionFactor / own);
    return [];
  }
  const scale = spec.maxPositions / scaling.originalMaxPositions;
  const computed = scale <= 1 ? 1 : Math.sqrt(1 + Math.log(scale) / Math.log(scaling.originalMaxPositions));
  float('scaling.attn_factor', scaling.attentionFactor ?? computed);
  if (scaling.shortMscale !== undefined) float('scaling.short_mscale', scaling.shortMscale);
  if (scaling.longMscale !== undefined) float('scaling.long_mscale', scaling.longMscale);
  return [
    { name: ROPE_FACTORS_LONG, values: scaling.longFactor },
    { name: ROPE_FACTORS_SHORT, values: scaling.shortFactor },
  ];
}

/** What the unscaled frequencies are to be divided by. */
function frequencyFactors(rope: RopeSpec): number[] {
  const scaled = computeFrequencies(rope, 1).inverseFrequencies;
  const plain = computeFrequencies({ ...rope, scaling: { type: 'default' } }, 1).inverseFrequencies;
  return Array.from(plain, (frequency, i) => frequency / (scaled[i] ?? Number.NaN));
}

/** GGUF has one window for all layers; which of them have it is the family's. */
function checkWindows({ layers }: ModelSpec, { windowPattern = 1 }: GgufFamily, path: string): void {
  const windows = layers.map(({ attention }) => attention.slidingWindow);
  const largest = Math.max(...windows);
  const isAsExpected = (window: number, layer: number) =>
    window === (windowPattern > 1 && (layer + 1) % windowPattern === 0 ? 0 : largest);
  if (windows.every(isAsExpected)) return;
  const expected =
    windowPattern === 1
      ? 'one window for all layers'
      : `one window, and none in every ${windowPattern}. layer`;
  throw unsupported(path, 'layer_types', expected, [...new Set(windows)].join(' and '));
}

function unsupported(file: string, field: string, expected: string, got: string): ModelFormatError {
  return new ModelFormatError({ code: 'ERR_MODEL_UNSUPPORTED', file, field, expected, got });
}
