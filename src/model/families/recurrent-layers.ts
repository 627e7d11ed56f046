/** Layers with a state in attention's place: their keys, and what they say of attention. Called by the families that have them. */
import type { ConfigReader } from '../config.js';
import type { AttentionSpec } from '../model-spec.js';
import type { GatedDeltaSpec, ShortConvSpec } from '../recurrent-spec.js';

/** Of layers that have something in attention's place. */
export const NO_ATTENTION: AttentionSpec = {
  kind: 'none',
  numHeads: 0,
  numKvHeads: 0,
  headDim: 0,
  qkNorm: 'none',
  qkvBias: false,
  outputBias: false,
  clipQkv: 0,
  scale: 0,
  slidingWindow: 0,
  rope: -1,
};

/** kMaxConvWidth of kernels/ops.h. */
const MAX_WIDTH = 16;
const MAX_SIZE = { max: 2 ** 20 };

/** The `linear_*` keys of Qwen3-Next. Throws ModelFormatError. */
export function readGatedDelta(config: ConfigReader): GatedDeltaSpec {
  const activation = config.text('hidden_act', 'silu');
  if (activation !== 'silu' && activation !== 'swish') {
    throw config.unsupported('hidden_act', 'silu in a model with gated delta nets', activation);
  }
  const numKeyHeads = config.integer('linear_num_key_heads', 16, { max: 4096 });
  const numValueHeads = config.integer('linear_num_value_heads', 32, { max: 4096 });
  if (numValueHeads % numKeyHeads !== 0) {
    throw config.contradiction('linear_num_key_heads', numKeyHeads, 'linear_num_value_heads', numValueHeads);
  }
  return {
    kind: 'gated-delta',
    convWidth: config.integer('linear_conv_kernel_dim', 4, { max: MAX_WIDTH }),
    numKeyHeads,
    numValueHeads,
    keyHeadDim: config.integer('linear_key_head_dim', 128, MAX_SIZE),
    valueHeadDim: config.integer('linear_value_head_dim', 128, MAX_SIZE),
    valueHeadOrder: 'grouped',
  };
}

/** The `conv_*` keys of LFM2. Throws ModelFormatError. */
export function readShortConv(config: ConfigReader, channels: number): ShortConvSpec {
  const bias = config.flag('conv_bias', false);
  if (bias) throw config.unsupported('conv_bias', 'false, as in every published model', bias);
  return { kind: 'short-conv', convWidth: config.integer('conv_L_cache', 3, { max: MAX_WIDTH }), channels };
}
