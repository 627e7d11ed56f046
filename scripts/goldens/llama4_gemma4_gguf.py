"""How Llama 4 and Gemma 4 lie in GGUF files by the conventions of llama.cpp's converters. Called by hub_to_gguf.py, whose
shared lists do not fit them: heads by layer, two sets of rotary frequencies, matrices with inputs before outputs."""

import numpy as np

MODEL_TYPES = ("llama4_text", "gemma4_text")

LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
}
LLAMA4_NAMES = {
    **LAYER_NAMES,
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "feed_forward.router.weight": "ffn_gate_inp.weight",
    **{f"feed_forward.{m}_proj.weight": f"ffn_{m}.weight" for m in ("gate", "up", "down")},
    **{f"feed_forward.shared_expert.{m}_proj.weight": f"ffn_{m}_shexp.weight" for m in ("gate", "up", "down")},
}
GEMMA4_NAMES = {
    **LAYER_NAMES,
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
    "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
    "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight",
    "router.proj.weight": "ffn_gate_inp.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "layer_scalar": "layer_output_scale.weight",
    **{f"mlp.{m}_proj.weight": f"ffn_{m}.weight" for m in ("gate", "up", "down")},
    "experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
}
TOP_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def renamed(config, tensors):
    """GGUF names and arrays."""
    is_gemma = config["model_type"] == "gemma4_text"
    for name, value in sorted(tensors.items()):
        if name in TOP_NAMES:
            yield TOP_NAMES[name], value
            continue
        _, _, layer, rest = name.split(".", 3)
        if rest == "feed_forward.experts.gate_up_proj":
            for matrix, part in zip(("gate", "up"), np.split(value, 2, axis=2)):
                yield f"blk.{layer}.ffn_{matrix}_exps.weight", np.ascontiguousarray(part.swapaxes(1, 2))
        elif rest == "feed_forward.experts.down_proj":
            yield f"blk.{layer}.ffn_down_exps.weight", np.ascontiguousarray(value.swapaxes(1, 2))
        else:
            yield f"blk.{layer}.{(GEMMA4_NAMES if is_gemma else LLAMA4_NAMES)[rest]}", value
    if is_gemma:
        yield "rope_freqs.weight", rope_factors(config)


def rope_factors(config):
    """Pairs of full layers' heads that stand still have frequencies divided by a very large number."""
    head_dim = full_heads(config)[0]
    rotated = int(head_dim * config["rope_parameters"]["full_attention"]["partial_rotary_factor"] / 2)
    return np.array([1.0] * rotated + [1e30] * (head_dim // 2 - rotated), dtype=np.float32)


def full_heads(config):
    """Head size and key/value heads of Gemma's full layers."""
    full = next(iter(config.get("per_layer_config", {}).values()), {})
    heads = full.get("num_key_value_heads") or config.get("num_global_key_value_heads")
    return full.get("head_dim") or config["global_head_dim"], heads or config["num_key_value_heads"]


def add_parameters(writer, config):
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if config["model_type"] == "gemma4_text":
        add_gemma4(writer, config)
    else:
        add_llama4(writer, config)


def add_llama4(writer, config):
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_feed_forward_length(config["intermediate_size_mlp"])
    writer.add_expert_feed_forward_length(config["intermediate_size"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_interleave_moe_layer_step(config["interleave_moe_layer_step"])
    # Constants in llama.cpp, of which its converter writes nothing.
    if config["attention_chunk_size"] != 8192:
        writer.add_sliding_window(config["attention_chunk_size"])
    if config["floor_scale"] != 8192:
        writer.add_attn_temperature_length(config["floor_scale"])
        writer.add_attn_temperature_scale(config["attn_scale"])


def add_gemma4(writer, config):
    sliding = [kind == "sliding_attention" for kind in config["layer_types"]]
    head_dim, heads = full_heads(config)
    ropes = config["rope_parameters"]
    writer.add_head_count_kv([config["num_key_value_heads"] if is_sliding else heads for is_sliding in sliding])
    writer.add_sliding_window_pattern(sliding)
    writer.add_sliding_window(config["sliding_window"])
    writer.add_shared_kv_layers(0)
    writer.add_embedding_length_per_layer_input(0)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_key_length_swa(config["head_dim"])
    writer.add_value_length_swa(config["head_dim"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_dimension_count_swa(config["head_dim"])
    writer.add_rope_freq_base(ropes["full_attention"]["rope_theta"])
    writer.add_rope_freq_base_swa(ropes["sliding_attention"]["rope_theta"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["top_k_experts"])
    if config["final_logit_softcapping"]:
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
