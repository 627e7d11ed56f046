/**
 * What GGUF files of Gemma 4 say in other ways than their family's config.json: heads and kinds of layers as lists, the
 * rotated share of a head as factors. Called by families/gemma4.ts.
 */
import type { JsonObject } from '../json-file.js';
import type { GgufSource } from './family.js';
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
