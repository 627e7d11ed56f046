"""The list of golden fixtures: one tiny random checkpoint per architecture, then variants of single features.

make_goldens.py builds them. Sizes are ragged on purpose: intermediate sizes that are no multiple of 16, fewer key/value
heads than query heads, head sizes that differ from hidden_size / num_attention_heads where the architecture allows it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TOKENIZER_SIZE = 291  # 3 special tokens, 256 bytes, 32 merges


@dataclass(frozen=True)
class Fixture:
    """`config` holds the keyword arguments of the architecture's transformers config class."""

    name: str
    architecture: str
    config: dict
    about: str
    dtype: str = "float32"
    shards: int = 1
    stacked_names: bool = False
    prompts: tuple[str, ...] = ("short", "long")
    generated: int = 12
    options: dict = field(default_factory=dict)


BASE = {
    "vocab_size": TOKENIZER_SIZE,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
QWEN3 = {
    **BASE,
    "head_dim": 16,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "intermediate_size": 52,
    "norm_topk_prob": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
QWEN2 = {
    **BASE,
    "num_experts": 7,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "intermediate_size": 52,
    "shared_expert_intermediate_size": 44,
    "norm_topk_prob": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
MIXTRAL = {
    **BASE,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 10,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "intermediate_size": 44,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}
OLMOE = {
    **BASE,
    "num_experts": 8,
    "num_experts_per_tok": 4,
    "intermediate_size": 20,
    "clip_qkv": 1.2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
PHIMOE = {
    **BASE,
    "num_hidden_layers": 2,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "intermediate_size": 28,
    "attention_bias": True,
    "lm_head_bias": True,
    "router_jitter_noise": 0.2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
GRANITE = {
    **BASE,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "intermediate_size": 20,
    "tie_word_embeddings": True,
    "embedding_multiplier": 6.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.6,
    "logits_scaling": 3.0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
GLM4 = {
    **BASE,
    "head_dim": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 1.7,
    "norm_topk_prob": True,
    "n_shared_experts": 2,
    "moe_intermediate_size": 20,
    "intermediate_size": 52,
    "first_k_dense_replace": 1,
    "attention_bias": True,
    "use_qk_norm": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
}
ERNIE45 = {
    **BASE,
    "num_hidden_layers": 4,
    "moe_num_experts": 7,
    "moe_k": 3,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": 2,
    "moe_intermediate_size": 20,
    "intermediate_size": 52,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
MINIMAX_M2 = {
    **BASE,
    "head_dim": 16,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "intermediate_size": 20,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
}
LATENT = {
    **BASE,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "intermediate_size": 52,
    "first_k_dense_replace": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
DEEPSEEK_V2 = {
    **LATENT,
    "q_lora_rank": 28,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "topk_method": "group_limited_greedy",
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 3.0,
}
DEEPSEEK_V3 = {
    **LATENT,
    "q_lora_rank": 28,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 1.5,
    "norm_topk_prob": True,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 6.4,
        "original_max_position_embeddings": 40,
        "beta_fast": 8.0,
        "beta_slow": 0.5,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
}
GLM4_LITE = {
    **{key: value for key, value in LATENT.items() if key != "first_k_dense_replace"},
    "q_lora_rank": 28,
    "n_routed_experts": 7,
    "n_shared_experts": 1,
    "routed_scaling_factor": 1.8,
    "norm_topk_prob": True,
}
GPT_OSS = {
    **BASE,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "intermediate_size": 96,
    "sliding_window": 24,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 6.4,
        "original_max_position_embeddings": 40,
        "beta_fast": 8.0,
        "beta_slow": 0.5,
        "truncate": False,
    },
}
LLAMA4 = {
    **BASE,
    "num_hidden_layers": 4,
    "head_dim": 10,
    "num_local_experts": 6,
    "num_experts_per_tok": 1,
    "intermediate_size": 20,
    "intermediate_size_mlp": 52,
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 24,
    "floor_scale": 10,
    "attn_scale": 0.3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
GEMMA4 = {
    **BASE,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 10,
    "global_head_dim": 18,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "enable_moe_block": True,
    "num_experts": 7,
    "top_k_experts": 3,
    "moe_intermediate_size": 20,
    "intermediate_size": 44,
    "sliding_window": 24,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "final_logit_softcapping": 1.5,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 100000.0},
    },
}
TINY_VISION = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
QWEN3_NEXT = {
    **BASE,
    "num_hidden_layers": 4,
    "head_dim": 24,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 28,
    "intermediate_size": 52,
    "norm_topk_prob": True,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 10,
    "linear_conv_kernel_dim": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
}
QWEN35 = {
    **{key: value for key, value in QWEN3_NEXT.items() if key not in ("norm_topk_prob", "intermediate_size")},
    "linear_num_key_heads": 3,
    "linear_num_value_heads": 6,
    "linear_value_head_dim": 20,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.25,
        "mrope_section": [1, 1, 1],
        "mrope_interleaved": True,
    },
}
LFM2 = {
    **BASE,
    "num_hidden_layers": 4,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "intermediate_size": 52,
    "num_dense_layers": 1,
    "conv_L_cache": 3,
    "routed_scaling_factor": 1.5,
    "layer_types": ["conv", "conv", "full_attention", "conv"],
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2}
SMALL_QWEN3 = {**QWEN3, **SMALL, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
SMALL_QWEN2 = {
    **QWEN2,
    **SMALL,
    "num_experts": 5,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 20,
}
SMALL_MIXTRAL = {**MIXTRAL, **SMALL, "intermediate_size": 20}
SMALL_PHIMOE = {
    **PHIMOE,
    **SMALL,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 20,
}
SMALL_GRANITE = {**GRANITE, **SMALL}
SHORT, LONG = [1.0, 1.1, 1.25, 1.5, 1.8, 2.2, 2.7, 3.3], [1.5, 2.2, 3.1, 4.5, 6.0, 8.0, 11.0, 15.0]


def rope(**parameters) -> dict:
    """A small qwen3_moe config with scaled rotary embeddings; prompts cross the original length of 40."""
    return {**SMALL_QWEN3, "rope_parameters": {"rope_theta": 10000.0, **parameters}}


def base(name: str, config: dict, about: str, options: dict | None = None) -> Fixture:
    """The fixture of an architecture: three prompts, 24 generated tokens."""
    return Fixture(
        name, name, config, about, prompts=("short", "long", "single"), generated=24, options=options or {}
    )


FIXTURES = [
    base(
        "qwen3_moe",
        {**QWEN3, "mlp_only_layers": [1]},
        "q/k norm per head, head_dim unlike hidden_size / heads, renormalised top-3, layer 1 dense by mlp_only_layers",
    ),
    base(
        "qwen2_moe",
        {**QWEN2, "num_hidden_layers": 4, "decoder_sparse_step": 2, "vocab_size": TOKENIZER_SIZE + 5},
        "q/k/v biases, shared expert with sigmoid gate, layers 0 and 2 dense by decoder_sparse_step, vocabulary padded beyond the tokenizer",
    ),
    base("mixtral", MIXTRAL, "top-2 of 5, head_dim 10, 6 query and 3 key/value heads"),
    base("olmoe", OLMOE, "q/k norm over the full projection, clip_qkv, top-4 without renormalising"),
    base(
        "phimoe",
        PHIMOE,
        "sparsemixer routing (jitter 0.2 so that its weights differ from 1), LayerNorm with biases, biases on attention and lm_head",
        {"router_gain": 0.4},
    ),
    base(
        "granitemoe",
        GRANITE,
        "four multipliers, softmax after top-k, fused input_linear, tied embeddings",
        {"embedding_std": 0.04},
    ),
    base(
        "glm4_moe",
        GLM4,
        "half-rotated heads, q/k norm per head, q/k/v biases, sigmoid top-3 of the best 2 of 4 groups with selection bias, weights x 1.7, two shared experts, layer 0 dense",
    ),
    base(
        "ernie4_5_moe",
        ERNIE45,
        "rotary pairs side by side, softmax with selection bias, two shared experts, layers 0 and 3 dense, tied embeddings",
        {"embedding_std": 0.2},
    ),
    base(
        "minimax_m2",
        MINIMAX_M2,
        "q/k norm over the full projection, half-rotated heads, sigmoid routing with selection bias",
    ),
    base(
        "deepseek_v2",
        DEEPSEEK_V2,
        "latent attention with a compressed query, softmax top-3 of the best 2 of 4 groups, weights x 3, two shared experts, layer 0 dense",
    ),
    base(
        "deepseek_v3",
        DEEPSEEK_V3,
        "latent attention, YaRN with DeepSeek's mscale, sigmoid routing with selection bias and groups",
    ),
    base(
        "glm4_moe_lite",
        GLM4_LITE,
        "latent attention, ungrouped sigmoid routing with selection bias, layer 0 dense by mlp_layer_types",
    ),
    base(
        "gpt_oss",
        GPT_OSS,
        "attention sinks, a sliding window on every other layer, YaRN without truncation, biases everywhere, clamped SwiGLU, experts in MXFP4 as published",
        {"mxfp4": True},
    ),
    base(
        "qwen3_next",
        {**QWEN3_NEXT, "mlp_only_layers": [2]},
        "gated delta nets (three value heads to a key head) with a gated attention layer between, heads rotated to a quarter, norms stored around zero, shared expert with sigmoid gate, layer 2 dense",
        {"solver": True},
    ),
    base(
        "qwen3_5_moe_text",
        QWEN35,
        "gated delta nets with separate projections, interleaved sections of rotary positions, gated attention, shared expert",
        {"solver": True},
    ),
    base(
        "lfm2_moe",
        LFM2,
        "short convolutions with an attention layer between, sigmoid routing with selection bias, weights x 1.5, layer 0 dense, tied embeddings",
        {"embedding_std": 0.2},
    ),
    Fixture(
        "llama4",
        "llama4_text",
        LLAMA4,
        "attention in chunks of 24 with rotary pairs side by side and norms without weights, layer 3 full without rotation and with temperature, the router scales its expert's input, shared expert, layers 0 and 2 dense",
        prompts=("short", "long", "single"),
        generated=24,
    ),
    Fixture(
        "gemma4",
        "gemma4_text",
        GEMMA4,
        "dense branch beside the experts, norms before and behind every part, a window on layer 0, layers 1 and 2 full with wider heads, one key/value head and keys as values, half of each head rotated, logits capped at 1.5",
        prompts=("short", "long", "single"),
        generated=24,
        options={"embedding_std": 0.06},
    ),
    Fixture(
        "llama4-conditional",
        "llama4",
        {
            "text_config": {
                **LLAMA4,
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "interleave_moe_layer_step": 1,
                "num_experts_per_tok": 2,
                "use_qk_norm": False,
                "no_rope_layers": [0, 1],
                "attention_bias": True,
            },
            "vision_config": {
                **TINY_VISION,
                "vision_output_dim": 8,
                "image_size": 4,
                "patch_size": 2,
                "projector_input_dim": 2,
                "projector_output_dim": 8,
            },
        },
        "the text part of a model of text and images, its configuration and tensors one level deeper; two experts per token, no norm on q and k, biases, layer 0 without rotation",
    ),
    Fixture(
        "gemma4-conditional",
        "gemma4",
        {
            "text_config": {
                **GEMMA4,
                "hidden_size": 32,
                "attention_k_eq_v": False,
                "pad_token_id": 0,
                "final_logit_softcapping": None,
            },
            "vision_config": {
                **TINY_VISION,
                "num_key_value_heads": 1,
                "head_dim": 8,
                "patch_size": 2,
                "position_embedding_size": 4,
            },
        },
        "the text part of a model of text and images; full layers with value matrices, logits as they are",
        options={"embedding_std": 0.06},
    ),
    Fixture(
        "deepseek_v3-fp8",
        "deepseek_v3",
        {
            **DEEPSEEK_V3,
            "hidden_size": 136,
            "num_hidden_layers": 2,
            "qk_nope_head_dim": 40,
            "v_head_dim": 36,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 12,
            "intermediate_size": 20,
        },
        "matrices in float8 with a factor for each 128 x 128 block; sizes across a block's border",
        options={"fp8": True},
    ),
    Fixture(
        "deepseek_v2-lite",
        "deepseek_v2",
        {
            **DEEPSEEK_V2,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "q_lora_rank": None,
            "topk_method": "greedy",
            "n_group": 1,
            "topk_group": 1,
            "routed_scaling_factor": 1.0,
            "rope_parameters": {**DEEPSEEK_V3["rope_parameters"], "mscale": 0.707, "mscale_all_dim": 0.707},
        },
        "queries projected at once, greedy top-3, YaRN with mscale 0.707: DeepSeek-V2-Lite",
    ),
    Fixture(
        "qwen3_moe-rope-linear", "qwen3_moe", rope(rope_type="linear", factor=3.0), "RoPE scaling: linear"
    ),
    Fixture(
        "qwen3_moe-rope-dynamic",
        "qwen3_moe",
        {**rope(rope_type="dynamic", factor=3.0), "max_position_embeddings": 40},
        "RoPE scaling: dynamic NTK, from position 40 on",
        prompts=("short", "long", "crossing"),
    ),
    Fixture(
        "qwen3_moe-rope-yarn",
        "qwen3_moe",
        rope(rope_type="yarn", factor=6.4, original_max_position_embeddings=40, beta_fast=8.0, beta_slow=0.5),
        "RoPE scaling: YaRN",
    ),
    Fixture(
        "qwen3_moe-rope-longrope",
        "qwen3_moe",
        {
            **rope(
                rope_type="longrope",
                original_max_position_embeddings=40,
                short_factor=SHORT,
                long_factor=LONG,
                factor=6.4,
            )
        },
        "RoPE scaling: LongRoPE, long factors beyond 40 positions",
        prompts=("short", "long", "crossing"),
    ),
    Fixture(
        "qwen3_moe-rope-llama3",
        "qwen3_moe",
        rope(
            rope_type="llama3",
            factor=4.0,
            original_max_position_embeddings=40,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
        ),
        "RoPE scaling: Llama 3",
    ),
    Fixture(
        "phimoe-longrope",
        "phimoe",
        {
            **SMALL_PHIMOE,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 40,
                "short_factor": SHORT,
                "long_factor": LONG,
                "short_mscale": 1.1,
                "long_mscale": 1.3,
            },
        },
        "LongRoPE with Phi's own mscales",
        options={"router_gain": 0.4},
    ),
    Fixture(
        "mixtral-sliding-window",
        "mixtral",
        {**SMALL_MIXTRAL, "sliding_window": 24},
        "attention sees the last 24 positions only",
    ),
    Fixture(
        "qwen2_moe-sliding-window",
        "qwen2_moe",
        {**SMALL_QWEN2, "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2},
        "a sliding window on layer 0, full attention on layer 1 (layer_types)",
    ),
    Fixture(
        "qwen3_moe-sharded",
        "qwen3_moe",
        SMALL_QWEN3,
        "three shards with model.safetensors.index.json",
        shards=3,
    ),
    Fixture(
        "qwen3_moe-bf16",
        "qwen3_moe",
        {**SMALL_QWEN3, "num_hidden_layers": 3, "tie_word_embeddings": True},
        "weights in BF16, tied embeddings",
        dtype="bfloat16",
        options={"embedding_std": 0.2},
    ),
    Fixture("mixtral-f16", "mixtral", SMALL_MIXTRAL, "weights in F16", dtype="float16"),
    Fixture(
        "qwen3_moe-stacked",
        "qwen3_moe",
        SMALL_QWEN3,
        "tensor names as transformers 5 keeps them: experts stacked",
        stacked_names=True,
    ),
    Fixture("mixtral-stacked", "mixtral", SMALL_MIXTRAL, "the same for mixtral", stacked_names=True),
    Fixture(
        "granitemoe-stacked",
        "granitemoe",
        {**SMALL_GRANITE, "head_dim": 10},
        "the same for granitemoe; head_dim 10",
        stacked_names=True,
        options={"embedding_std": 0.04},
    ),
]
