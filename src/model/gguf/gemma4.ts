/**
 * What GGUF files of Gemma 4 say in other ways than their family's config.json: heads and kinds of layers as lists, the
 * rotated share of a head as factors. Called by families/gemma4.ts.
 */
import { ModelFormatError } from '../../errors.js';
import type { JsonObject } from '../json-file.js';
import type { ModelSpec, RopeSpec } from '../model-spec.js';
import type { GgufSource, OwnMetadata } from './family.js';
import { ROPE_FREQS } from './names.js';
import { readRopeFactors } from './rope.js';

const ARCH = 'gemma4';
/** Pairs of a head that are not rotated have frequencies divided by 1e30. */
const STANDS_STILL = 1e29;

export function gemma4GgufDefaults(source: GgufSource): JsonObject {
  const { metadata, tensors, integer } = source;
  const key = (suffix: string) => `${ARCH}.${suffix}`;
  const sliding = metadata.flags(key('attention.sliding_window_pattern')) ?? [];
  const [firstSliding, firstFull] = [sliding.indexOf(true), sliding.indexOf(false)];
  const headsOf = keyValueHeads(source, sliding.length);
  const globalHeadDim = integer('attention.key_length');
  return {
    layer_types: sliding.map((isSliding) => (isSliding ? 'sliding_attention' : 'full_attention')),
    head_dim: integer('attention.key_length_swa'),
    global_head_dim: globalHeadDim,
    num_key_value_heads: headsOf[Math.max(firstSliding, 0)],
    num_global_key_value_heads: headsOf[Math.max(firstFull, 0)],
    attention_k_eq_v: firstFull >= 0 && !tensors.has(`blk.${firstFull}.attn_v.weight`),
    enable_moe_block: true,
    hidden_size_per_layer_input: integer('embedding_length_per_layer_input') ?? 0,
    hidden_activation: 'gelu_pytorch_tanh',
    rope_parameters: {
      sliding_attention: {
        rope_type: 'default',
        rope_theta: metadata.number(key('rope.freq_base_swa')) ?? 10000,
      },
      full_attention: {
        rope_type: 'proportional',
        rope_theta: metadata.number(key('rope.freq_base')) ?? 1e6,
        partial_rotary_factor: rotatedShare(source, globalHeadDim ?? 0),
      },
    },
  };
}

/** Everything that files of Gemma 4 say otherwise than those of other families. */
export function gemma4Metadata({ layers, ropes, logitsSoftcap }: ModelSpec, path: string): OwnMetadata {
  checkRopes(ropes, path);
  const isSliding = layers.map(({ attention }) => attention.slidingWindow > 0);
  const sliding = layers[isSliding.indexOf(true)]?.attention;
  const full = layers[isSliding.indexOf(false)]?.attention;
  const [ffn] = layers.map((layer) => layer.ffn);
  const shared = ffn?.kind === 'moe' ? ffn.sharedExpert : undefined;
  const u32 = (value: number | undefined) =>
    value === undefined ? undefined : ({ type: 'u32', value } as const);
  const f32 = (value: number | undefined) =>
    value === undefined ? undefined : ({ type: 'f32', value } as const);
  const heads = full ?? sliding;
  return {
    entries: {
      embedding_scale: undefined,
      embedding_length_per_layer_input: u32(0),
      'attention.scale': undefined,
      'attention.shared_kv_layers': u32(0),
      'attention.head_count_kv': { type: 'i32s', value: layers.map(({ attention }) => attention.numKvHeads) },
      'attention.sliding_window': u32(sliding?.slidingWindow ?? 0),
      'attention.sliding_window_pattern': { type: 'bools', value: isSliding },
      'attention.key_length': u32(heads?.headDim),
      'attention.value_length': u32(heads?.headDim),
      'attention.key_length_swa': u32(sliding?.headDim),
      'attention.value_length_swa': u32(sliding?.headDim),
      'rope.dimension_count': u32(heads?.headDim),
      'rope.dimension_count_swa': u32(sliding?.headDim),
      'rope.freq_base': f32(ropes[1]?.theta),
      'rope.freq_base_swa': f32(ropes[0]?.theta),
      feed_forward_length: u32(shared?.intermediateSize),
      expert_shared_feed_forward_length: undefined,
      expert_shared_count: undefined,
      leading_dense_block_count: undefined,
      final_logit_softcapping: f32(logitsSoftcap),
    },
    ropeTensors: [{ name: ROPE_FREQS, values: standingFactors(heads?.headDim ?? 0, ropes[1]) }],
  };
}

/** Pairs of a head that stand still have their frequency divided by a very large number. */
function standingFactors(headDim: number, rope: RopeSpec | undefined): number[] {
  const scaling = rope?.scaling;
  const turning = scaling?.type === 'proportional' ? scaling.rotatedPairs : headDim / 2;
  return Array.from({ length: headDim / 2 }, (_, pair) => (pair < turning ? 1 : 1e30));
}

/** Windows' layers rotate plainly, full ones by a share of each head. */
function checkRopes([sliding, full]: readonly RopeSpec[], path: string): void {
  const scaling = full?.scaling;
  const isUsual = scaling?.type === 'default' || (scaling?.type === 'proportional' && scaling.factor === 1);
  if (isUsual && sliding?.scaling.type === 'default') return;
  throw new ModelFormatError({
    code: 'ERR_MODEL_UNSUPPORTED',
    file: path,
    field: 'rope_parameters',
    expected: 'default for windows, default or proportional without a factor for full layers',
    got: [sliding, full].map((rope) => rope?.scaling.type).join(' and '),
  });
}

/** Of each layer; a file may have one number for all. */
function keyValueHeads({ metadata }: GgufSource, numLayers: number): ArrayLike<number> {
  const key = `${ARCH}.attention.head_count_kv`;
  if (ArrayBuffer.isView(metadata.get(key))) return metadata.numbers(key) ?? [];
  const heads = metadata.integer(key, 1);
  if (heads === undefined) throw metadata.error(key, 'a number or one for each layer', 'no such key');
  return new Array<number>(numLayers).fill(heads);
}

function rotatedShare({ tensors }: GgufSource, headDim: number): number {
  if (!tensors.has(ROPE_FREQS)) return 1;
  const rotated = readRopeFactors(tensors, ROPE_FREQS).filter((factor) => factor < STANDS_STILL);
  // Half a value more, so that no pair is lost to rounding; whole pairs are counted.
  return Math.min((2 * rotated.length + 0.5) / headDim, 1);
}
