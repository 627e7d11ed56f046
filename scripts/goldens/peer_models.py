"""Makes small models of the families that llama.cpp knows, trained for some minutes on a toy task, as GGUF in F32 and Q8_0 by gguf-py, with
greedy tokens that transformers computes in float32, and as checkpoints for converted-files.mjs. They are models that
llama.cpp can run too: no dense layers in between, whole blocks of 32 columns. peer-parity.mjs compares nearmoe and
node-llama-cpp on them.

Usage: python scripts/goldens/peer_models.py OUT_FOLDER [MODEL_TYPE[-VARIANT]...]
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
from byte_tokenizer import build  # noqa: E402
from checkpoint import fill  # noqa: E402
from fixtures import TOKENIZER_SIZE  # noqa: E402
from hub_to_gguf import convert  # noqa: E402

BASE = dict(
    vocab_size=TOKENIZER_SIZE,
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=None,
    eos_token_id=0,
    pad_token_id=None,
    intermediate_size=64,
    num_experts_per_tok=2,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
)
MODELS = {
    "qwen3_moe": dict(head_dim=64, moe_intermediate_size=64, num_experts=8, norm_topk_prob=True),
    "qwen2_moe": dict(moe_intermediate_size=64, shared_expert_intermediate_size=96, num_experts=8),
    "mixtral": dict(num_local_experts=8),
    "olmoe": dict(num_experts=8, num_key_value_heads=4),
    "phimoe": dict(num_local_experts=8, attention_bias=True, lm_head_bias=True),
    "granitemoe": dict(
        num_local_experts=8,
        tie_word_embeddings=True,
        attention_multiplier=0.2,
        embedding_multiplier=6.0,
        residual_multiplier=0.6,
        logits_scaling=2.0,
    ),
}
LATENT = dict(
    num_key_value_heads=4,
    kv_lora_rank=64,
    qk_nope_head_dim=32,
    qk_rope_head_dim=32,
    v_head_dim=32,
    n_routed_experts=8,
    n_shared_experts=1,
    moe_intermediate_size=64,
    first_k_dense_replace=1,
)
# More experts a token than chosen groups: else the best ones' groups are always among those that may be chosen from.
GROUPS = dict(n_group=4, topk_group=2, num_experts_per_tok=3)
MODELS |= {
    "glm4_moe": dict(
        head_dim=64,
        moe_intermediate_size=64,
        n_routed_experts=8,
        n_shared_experts=1,
        first_k_dense_replace=1,
        attention_bias=True,
        routed_scaling_factor=1.5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ),
    "ernie4_5_moe": dict(moe_num_experts=8, moe_k=2, moe_num_shared_experts=1, moe_intermediate_size=64),
    "minimax_m2": dict(
        head_dim=64,
        num_local_experts=8,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ),
    "deepseek_v2": dict(**LATENT, q_lora_rank=64),
    # llama.cpp takes queries without compression for the Lite model alone, which it knows by its 27 layers.
    "deepseek_v2-lite": dict(**LATENT, q_lora_rank=None, num_hidden_layers=27),
    "deepseek_v2-groups": dict(**LATENT, **GROUPS, q_lora_rank=64, topk_method="group_limited_greedy"),
    "deepseek_v3": dict(**LATENT, q_lora_rank=64, n_group=1, topk_group=1, routed_scaling_factor=1.5),
    "deepseek_v3-groups": dict(**LATENT, **GROUPS, q_lora_rank=64, routed_scaling_factor=1.5),
    "glm4_moe_lite": dict(
        **{key: value for key, value in LATENT.items() if key != "first_k_dense_replace"},
        q_lora_rank=64,
        routed_scaling_factor=1.8,
    ),
    "gpt_oss": dict(
        head_dim=64,
        num_local_experts=8,
        sliding_window=24,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
}
# Chunks, temperature and rotated layers are constants in llama.cpp, those of the published models.
MODELS |= {
    "llama4_text": dict(
        num_hidden_layers=4,
        head_dim=64,
        num_local_experts=8,
        num_experts_per_tok=1,
        intermediate_size_mlp=64,
    ),
    "gemma4_text": dict(
        head_dim=32,
        global_head_dim=64,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        hidden_size_per_layer_input=0,
        enable_moe_block=True,
        num_experts=8,
        top_k_experts=2,
        moe_intermediate_size=64,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention"],
        final_logit_softcapping=30.0,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 10000.0},
        },
    ),
}
DELTA = dict(
    num_hidden_layers=4,
    head_dim=64,
    moe_intermediate_size=64,
    shared_expert_intermediate_size=64,
    num_experts=8,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=32,
    linear_value_head_dim=32,
)
QUARTER = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
MODELS |= {
    "qwen3_next": dict(**DELTA, rope_parameters=QUARTER),
    "qwen3_5_moe_text": dict(**DELTA, rope_parameters={**QUARTER, "mrope_section": [4, 2, 2]}),
    "lfm2_moe": dict(
        num_hidden_layers=4,
        layer_types=["conv", "conv", "full_attention", "conv"],
        num_dense_layers=1,
        num_experts=8,
        moe_intermediate_size=64,
        tie_word_embeddings=True,
    ),
}
PROMPT_LENGTHS = (2, 9, 60)
GENERATED = 24
STEPS = 300
# As long as the longest prompt with its answer: beyond what it was trained on a model chooses by near ties.
TRAINED_LENGTH = 88
TABLES = 4
TABLE_SIZE = 64


def sequences(tables, count, length):
    """Random walks: the first token names one of the tables, which gives each token's successor."""
    ids = torch.empty(count, length, dtype=torch.long)
    ids[:, 0] = torch.randint(0, len(tables), (count,)) + 3
    ids[:, 1] = torch.randint(0, tables.shape[1], (count,)) + 3
    for t in range(2, length):
        ids[:, t] = tables[ids[:, 0] - 3, ids[:, t - 1] - 3] + 3
    return ids


def train(model, tables):
    """A short training: untrained models route and choose by near ties that any rounding of weights flips."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(STEPS):
        ids = sequences(tables, 8, TRAINED_LENGTH)
        logits = model(ids).logits[:, 1:-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 2:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"  loss {loss.item():.4f}")


def greedy(model, prompt):
    """The tokens that follow, the smallest distance of the two likeliest over the largest logit, and the logits of the
    first of them."""
    ids, gap, first = list(prompt), 1.0, None
    with torch.no_grad():
        for _ in range(GENERATED):
            logits = model(torch.tensor([ids])).logits[0, -1]
            first = logits if first is None else first
            top = logits.topk(2).values
            gap = min(gap, float((top[0] - top[1]) / logits.abs().max()))
            ids.append(int(logits.argmax()))
    return {
        "inputIds": prompt,
        "greedyIds": ids[len(prompt) :],
        "smallestGap": gap,
        "logits": [float(f"{x:.8g}") for x in first.tolist()],
    }


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = json.loads(build(TOKENIZER_SIZE).to_str())
    for name in sys.argv[2:] or MODELS:
        values = MODELS[name]
        torch.manual_seed(11)
        tables = torch.stack([torch.randperm(TABLE_SIZE) for _ in range(TABLES)])
        config = AutoConfig.for_model(name.split("-")[0], **{**BASE, **values})
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
        fill(model, 11, {})
        train(model, tables)
        model.eval()
        prompts = [greedy(model, sequences(tables, 1, length)[0].tolist()) for length in PROMPT_LENGTHS]
        (out / f"{name}.json").write_text(json.dumps({"prompts": prompts}) + "\n")
        model.save_pretrained(out / name)
        (out / name / "tokenizer.json").write_text(json.dumps(tokenizer))
        (out / name / "tokenizer_config.json").write_text("{}")
        for kind in ("f32", "q8_0"):
            convert(out / name, out / f"{name}-{kind}.gguf", kind, tokenizer=tokenizer, pre="gpt-2")
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
