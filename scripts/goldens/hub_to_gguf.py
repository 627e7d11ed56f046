"""Converts a Hub checkpoint of a family that llama.cpp knows to GGUF with gguf-py, by the conventions of llama.cpp's
converters: names, merged experts, reordered rows of q and k, tokenizer and metadata. An independent writer for tests;
`node infer.js convert` does not use it.

Usage: python scripts/goldens/hub_to_gguf.py CHECKPOINT_FOLDER OUT.gguf [--type f32|f16|bf16|q8_0|q4_0|...]
"""

import argparse
import json
import math
from pathlib import Path

import gguf
import llama4_gemma4_gguf as newer
import numpy as np
from safetensors.torch import load_file

ARCHITECTURES = {
    "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
    "qwen2_moe": gguf.MODEL_ARCH.QWEN2MOE,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "olmoe": gguf.MODEL_ARCH.OLMOE,
    "phimoe": gguf.MODEL_ARCH.PHIMOE,
    "granitemoe": gguf.MODEL_ARCH.GRANITE_MOE,
    "glm4_moe": gguf.MODEL_ARCH.GLM4_MOE,
    "ernie4_5_moe": gguf.MODEL_ARCH.ERNIE4_5_MOE,
    "minimax_m2": gguf.MODEL_ARCH.MINIMAXM2,
    "deepseek_v2": gguf.MODEL_ARCH.DEEPSEEK2,
    "deepseek_v3": gguf.MODEL_ARCH.DEEPSEEK2,
    "glm4_moe_lite": gguf.MODEL_ARCH.DEEPSEEK2,
    "gpt_oss": gguf.MODEL_ARCH.GPT_OSS,
    "llama4_text": gguf.MODEL_ARCH.LLAMA4,
    "gemma4_text": gguf.MODEL_ARCH.GEMMA4,
    "qwen3_next": gguf.MODEL_ARCH.QWEN3NEXT,
    "qwen3_5_moe_text": gguf.MODEL_ARCH.QWEN35MOE,
    "lfm2_moe": gguf.MODEL_ARCH.LFM2MOE,
}
# Their converters reorder q and k so that the two values of a rotated pair lie side by side.
REORDERED = {"mixtral", "granitemoe"}

LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "ffn_gate_inp",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "block_sparse_moe.router.layer": "ffn_gate_inp",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "block_sparse_moe.output_linear": "ffn_down_exps",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "block_sparse_moe.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.moe_statics.e_score_correction_bias": "exp_probs_b.bias",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.sinks": "attn_sinks.weight",
    "mlp.router": "ffn_gate_inp",
    "linear_attn.in_proj_ba": "ssm_ba",
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.conv1d": "ssm_conv1d",
    "linear_attn.norm": "ssm_norm",
    "linear_attn.out_proj": "ssm_out",
    "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
    "self_attn.out_proj": "attn_output",
    "conv.conv": "shortconv.conv",
    "conv.in_proj": "shortconv.in_proj",
    "conv.out_proj": "shortconv.out_proj",
    "feed_forward.gate": "ffn_gate_inp",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w3": "ffn_up",
    "feed_forward.w2": "ffn_down",
    "feed_forward.expert_bias": "exp_probs_b.bias",
    "linear_attn.A_log": "ssm_a",
    "linear_attn.dt_bias": "ssm_dt.bias",
}
TOP_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.embedding_norm": "token_embd_norm",
}
EXPERT_NAMES = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}


def reorder(weight, heads):
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def renamed(config, tensors):
    """GGUF names and arrays, experts merged, q and k reordered where the family's converter does it."""
    experts = {}
    for name, value in sorted(tensors.items()):
        if config["model_type"] in HYBRIDS:
            value = delta_values(config, name, value)
        if "conv.conv" in name:
            value = value.squeeze(1)
        base, kind = name.rsplit(".", 1)
        if name.endswith("in_proj_qkvz.weight"):
            yield from split_by_key_head(config, name.split(".")[2], value)
            continue
        if name.endswith(("e_score_correction_bias", ".sinks", "expert_bias", ".A_log", ".dt_bias")):
            layer, rest = name.removeprefix("model.layers.").split(".", 1)
            yield f"blk.{layer}.{LAYER_NAMES[rest]}", value.reshape(-1)
            continue
        if not name.startswith("model.layers."):
            yield f"{TOP_NAMES[base]}.{kind}", value
            continue
        _, _, layer, rest = base.split(".", 3)
        if rest == "self_attn.kv_b_proj":
            yield from latent_projections(config, layer, value)
            continue
        if rest == "mlp.experts":
            yield from gpt_oss_experts(layer, kind, value)
            continue
        if rest == "post_attention_layernorm" and config["model_type"] in ("glm4_moe", "gpt_oss", *HYBRIDS):
            yield f"blk.{layer}.post_attention_norm.{kind}", value
            continue
        if ".experts." in rest:
            expert, matrix = rest.split(".experts.")[1].split(".")
            experts.setdefault((int(layer), EXPERT_NAMES[matrix]), {})[int(expert)] = value
            continue
        if rest == "block_sparse_moe.input_linear":
            gate, up = np.split(value, 2, axis=1)
            yield f"blk.{layer}.ffn_gate_exps.weight", np.ascontiguousarray(gate)
            yield f"blk.{layer}.ffn_up_exps.weight", np.ascontiguousarray(up)
            continue
        if config["model_type"] in REORDERED and rest in ("self_attn.q_proj", "self_attn.k_proj"):
            key = "num_attention_heads" if rest.endswith("q_proj") else "num_key_value_heads"
            value = np.ascontiguousarray(reorder(value, config.get(key) or config["num_attention_heads"]))
        if rest == "mlp.shared_expert_gate":
            value = value.reshape(-1)
        yield f"blk.{layer}.{LAYER_NAMES[rest]}.{kind}", value
    for (layer, matrix), parts in sorted(experts.items()):
        yield f"blk.{layer}.ffn_{matrix}_exps.weight", np.stack([parts[i] for i in range(len(parts))])


HYBRIDS = ("qwen3_next", "qwen3_5_moe_text")


def delta_values(config, name, value):
    """Decay rates and norm weights as they are meant, kernels as matrices, and Qwen3.5's value heads in turn: the first
    of every key head, then the second of every key head."""
    if name.endswith("A_log"):
        value = -np.exp(value)
    elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        value = value + 1
    elif "conv1d" in name:
        value = value.reshape(value.shape[0], -1)
    if config["model_type"] == "qwen3_next" or "linear_attn." not in name:
        return value
    keys, heads, width = (config[f"linear_{key}"] for key in ("num_key_heads", "num_value_heads", "value_head_dim"))
    in_turn = np.arange(heads).reshape(keys, heads // keys).T.reshape(-1)
    rows = (in_turn[:, None] * width + np.arange(width)).reshape(-1)
    if name.endswith(("in_proj_b.weight", "in_proj_a.weight", "A_log", "dt_bias")):
        return value[in_turn]
    if name.endswith("in_proj_z.weight"):
        return value[rows]
    if name.endswith("out_proj.weight"):
        return np.ascontiguousarray(value[:, rows])
    if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        others = 2 * keys * config["linear_key_head_dim"]
        return np.concatenate([value[:others], value[others:][rows]])
    return value


def split_by_key_head(config, layer, value):
    """Queries of all heads, then keys, then values; the gates in a tensor of their own."""
    keys, heads = config["linear_num_key_heads"], config["linear_num_value_heads"]
    key_width, value_width = config["linear_key_head_dim"], heads // keys * config["linear_value_head_dim"]
    groups = value.reshape(keys, 2 * key_width + 2 * value_width, -1)
    ends = [key_width, 2 * key_width, 2 * key_width + value_width]
    q, k, v, z = (part.reshape(-1, value.shape[-1]) for part in np.split(groups, ends, axis=1))
    yield f"blk.{layer}.attn_qkv.weight", np.concatenate([q, k, v])
    yield f"blk.{layer}.attn_gate.weight", np.ascontiguousarray(z)


def latent_projections(config, layer, value):
    """Keys and values of each head apart, the keys' part transposed: what llama.cpp's absorbed attention takes."""
    nope, width = config["qk_nope_head_dim"], config["v_head_dim"]
    heads = value.reshape(config["num_attention_heads"], nope + width, value.shape[-1])
    yield f"blk.{layer}.attn_k_b.weight", np.ascontiguousarray(heads[:, :nope].swapaxes(1, 2))
    yield f"blk.{layer}.attn_v_b.weight", np.ascontiguousarray(heads[:, nope:])


def gpt_oss_experts(layer, kind, value):
    """Gate and up rows lie in turn; matrices are [out, in] here (see out_first)."""
    if kind.startswith("gate_up_proj"):
        ending = "bias" if kind.endswith("bias") else "weight"
        for i, name in enumerate(("gate", "up")):
            yield f"blk.{layer}.ffn_{name}_exps.{ending}", np.ascontiguousarray(value[:, i::2])
    else:
        yield f"blk.{layer}.ffn_down_exps.{'bias' if kind.endswith('bias') else 'weight'}", value


def out_first(config, tensors):
    """gpt-oss's float matrices are [E, in, out]; those decoded from MXFP4 are not."""
    if config["model_type"] == "gpt_oss":
        for name in tensors:
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                tensors[name] = np.ascontiguousarray(tensors[name].swapaxes(1, 2))


def decoded_mxfp4(tensors):
    """Pairs of codes and scales as matrices [E, out, in]."""
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
    for name in [n for n in tensors if n.endswith("_blocks")]:
        base = name.removesuffix("_blocks")
        codes = tensors.pop(name).astype(np.uint8)
        scales = np.exp2(tensors.pop(f"{base}_scales").astype(np.float32) - 127)
        values = np.stack([levels[codes & 15], levels[codes >> 4]], axis=-1).reshape(*codes.shape[:-1], 32)
        values *= scales[..., None]
        tensors[base] = values.reshape(*values.shape[:-2], -1)


def add_new_parameters(writer, config, rope):
    """What the families after the first six have besides."""
    kind = config["model_type"]
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if "partial_rotary_factor" in rope:
        writer.add_rope_dimension_count(int(head_dim * rope["partial_rotary_factor"]))
    if kind in ("glm4_moe", "minimax_m2", "deepseek_v3", "glm4_moe_lite"):
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    elif kind in ("deepseek_v2", "ernie4_5_moe"):
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)
    if kind in ("glm4_moe", "deepseek_v2", "deepseek_v3", "glm4_moe_lite"):
        writer.add_expert_weights_scale(config["routed_scaling_factor"])
        writer.add_expert_weights_norm(bool(config.get("norm_topk_prob")))
        writer.add_expert_shared_count(config["n_shared_experts"])
        dense = config.get("first_k_dense_replace")
        writer.add_leading_dense_block_count(config["mlp_layer_types"].count("dense") if dense is None else dense)
        if (config.get("n_group") or 1) > 1:
            writer.add_expert_group_count(config["n_group"])
            writer.add_expert_group_used_count(config["topk_group"])
    if kind == "ernie4_5_moe":
        writer.add_expert_shared_count(config["moe_num_shared_experts"])
        shared = config["moe_intermediate_size"] * config["moe_num_shared_experts"]
        writer.add_expert_shared_feed_forward_length(shared)
        writer.add_leading_dense_block_count(config["moe_layer_start_index"])
        writer.add_interleave_moe_layer_step(config["moe_layer_interval"])
    if kind == "minimax_m2":
        writer.add_expert_feed_forward_length(config["intermediate_size"])
    if kind == "gpt_oss":
        writer.add_expert_feed_forward_length(config["intermediate_size"])
        writer.add_sliding_window(config["sliding_window"])
    if kind in HYBRIDS:
        writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
        writer.add_ssm_state_size(config["linear_key_head_dim"])
        writer.add_ssm_group_count(config["linear_num_key_heads"])
        writer.add_ssm_time_step_rank(config["linear_num_value_heads"])
        writer.add_ssm_inner_size(config["linear_value_head_dim"] * config["linear_num_value_heads"])
        writer.add_full_attention_interval(config.get("full_attention_interval", 4))
    if kind == "qwen3_5_moe_text":
        writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
    if kind == "lfm2_moe":
        writer.add_leading_dense_block_count(config["num_dense_layers"])
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_expert_weights_scale(config["routed_scaling_factor"])
        writer.add_shortconv_l_cache(config["conv_L_cache"])
    if "kv_lora_rank" in config:
        rank, rope_dim = config["kv_lora_rank"], config["qk_rope_head_dim"]
        if config.get("q_lora_rank"):
            writer.add_q_lora_rank(config["q_lora_rank"])
        writer.add_kv_lora_rank(rank)
        # The cached row is one key and value head; the head's own sizes have keys of their own.
        writer.add_key_length(rank + rope_dim)
        writer.add_value_length(rank)
        writer.add_key_length_mla(config["qk_nope_head_dim"] + rope_dim)
        writer.add_value_length_mla(config["v_head_dim"])
        if rope.get("mscale_all_dim"):
            writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])


def add_parameters(writer, config, rope):
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    if "intermediate_size" in config:
        writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    kv_heads = 1 if "kv_lora_rank" in config else config.get("num_key_value_heads") or heads
    if "conv" in config.get("layer_types", []):
        kv_heads = [0 if kind == "conv" else kv_heads for kind in config["layer_types"]]
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps") or config["norm_eps"])
    count_keys = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    writer.add_expert_count(next(config[key] for key in count_keys if config.get(key)))
    writer.add_expert_used_count(config.get("num_experts_per_tok") or config["moe_k"])
    writer.add_vocab_size(config["vocab_size"])
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    if "partial_rotary_factor" not in rope:
        writer.add_rope_dimension_count(config.get("qk_rope_head_dim") or head_dim)
    add_new_parameters(writer, config, rope)
    if config.get("head_dim") and "kv_lora_rank" not in config:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    optional = {
        "moe_intermediate_size": writer.add_expert_feed_forward_length,
        "shared_expert_intermediate_size": writer.add_expert_shared_feed_forward_length,
        "clip_qkv": writer.add_clamp_kqv,
        "attention_multiplier": writer.add_attention_scale,
        "embedding_multiplier": writer.add_embedding_scale,
        "residual_multiplier": writer.add_residual_scale,
        "logits_scaling": writer.add_logit_scale,
    }
    for key, add in optional.items():
        if config.get(key):
            add(config[key])
    if config["model_type"] == "phimoe":
        writer.add_sliding_window(config.get("sliding_window") or 0)
        # llama.cpp knows neither; its Phi models route and scale by its own constants.
        writer.add_float32("phimoe.router_jitter_noise", config["router_jitter_noise"])
        for key in ("short_mscale", "long_mscale"):
            if key in rope:
                writer.add_float32(f"phimoe.rope.scaling.{key}", rope[key])
    add_rope(writer, config, rope)


def add_rope(writer, config, rope):
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
        if rope.get("beta_fast"):
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    if "original_max_position_embeddings" in rope:
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "longrope":
        original = rope["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
        for name in ("long", "short"):
            writer.add_tensor(f"rope_factors_{name}.weight", np.array(rope[f"{name}_factor"], dtype=np.float32))
    elif kind not in ("default", "linear", "yarn"):
        raise NotImplementedError(f"rope type {kind}")


def token_kinds(tokenizer, tokens):
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    for id, token in enumerate(tokens):
        if token.startswith("[PAD"):
            kinds[id] = gguf.TokenType.UNUSED
        if tokenizer["model"].get("byte_fallback") and token.startswith("<0x") and len(token) == 6:
            kinds[id] = gguf.TokenType.BYTE
    for token in tokenizer["added_tokens"]:
        kinds[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        if token["content"] == "<unk>":
            kinds[token["id"]] = gguf.TokenType.UNKNOWN
    return kinds


def add_tokenizer(writer, tokenizer, vocab_size, pre):
    """A byte-level BPE as model `gpt2`, one with byte fallback as `llama` with scores that follow from its merges."""
    vocab = {**tokenizer["model"]["vocab"], **{t["content"]: t["id"] for t in tokenizer["added_tokens"]}}
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    for token, id in vocab.items():
        tokens[id] = token
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    byte_fallback = tokenizer["model"].get("byte_fallback", False)
    writer.add_tokenizer_model("llama" if byte_fallback else "gpt2")
    writer.add_tokenizer_pre("default" if byte_fallback else pre)
    writer.add_token_list(tokens)
    writer.add_token_types(token_kinds(tokenizer, tokens))
    if byte_fallback:
        rank = {merge.replace(" ", ""): i for i, merge in reversed(list(enumerate(merges)))}
        writer.add_token_scores([-float(rank.get(token, 100000 + id)) for id, token in enumerate(tokens)])
        writer.add_bos_token_id(vocab["<s>"])
        writer.add_unk_token_id(vocab["<unk>"])
        writer.add_add_bos_token(True)
    else:
        writer.add_token_merges(merges)
        writer.add_add_bos_token(False)


def convert(folder, out, type_name="f32", tokenizer=None, pre="qwen2", chat_template=None, output_type=None):
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update({name: value.float().numpy() for name, value in load_file(file).items()})
    out_first(config, tensors)
    decoded_mxfp4(tensors)
    if config.get("tie_word_embeddings"):
        tensors.pop("lm_head.weight", None)
    if tokenizer is None:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = {"rope_theta": config.get("rope_theta", 10000.0), **rope}
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config["model_type"]]])
    writer.add_name(folder.name)
    if config["model_type"] in newer.MODEL_TYPES:
        newer.add_parameters(writer, config)
        named = newer.renamed(config, tensors)
    else:
        add_parameters(writer, config, rope)
        named = renamed(config, tensors)
    add_tokenizer(writer, tokenizer, config["vocab_size"], pre)
    eos = config.get("eos_token_id")
    if eos is not None:
        writer.add_eos_token_id(eos[0] if isinstance(eos, list) else eos)
    if chat_template:
        writer.add_chat_template(chat_template)
    for name, value in named:
        value = value.astype(np.float32)
        is_output = name == "output.weight" and output_type is not None
        wanted = gguf.GGMLQuantizationType[(output_type if is_output else type_name).upper()]
        block = gguf.GGML_QUANT_SIZES[wanted][0]
        # Vectors, convolutions and routers stay in float32, as converters keep them.
        is_small = value.ndim == 1 or any(part in name for part in (".bias", "conv1d", "shortconv.conv", "ffn_gate_inp"))
        if is_small or value.shape[-1] % block != 0:
            writer.add_tensor(name, value)
        else:
            writer.add_tensor(name, gguf.quants.quantize(value, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--type", default="f32")
    parser.add_argument("--pre", default="qwen2", help="name of the pre-tokenizer of a byte-level tokenizer")
    arguments = parser.parse_args()
    convert(arguments.folder, arguments.out, arguments.type, pre=arguments.pre)


if __name__ == "__main__":
    main()
