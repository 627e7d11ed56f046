"""Writes test/fixtures/gguf/: a tiny random model of each family as GGUF, by gguf-py, with the config.json that
transformers wrote for it and what gguf-py reads back; a split model; tensors of every supported type;
the golden checkpoints.
Read by test/unit/model/gguf*.test.ts.

Usage: python scripts/goldens/gguf_fixtures.py   (needs torch, transformers, safetensors, gguf)
"""

import json
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
from hub_to_gguf import convert  # noqa: E402

FIXTURES = Path(__file__).parents[2] / "test" / "fixtures"
OUT = FIXTURES / "gguf"
VOCAB_SIZE = 600
SIZES = dict(
    vocab_size=VOCAB_SIZE,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=None,
    eos_token_id=400,
)
FACTORS = [1.0 + 0.5 * i for i in range(4)]

# model type, config values, type of the matrices, tokenizer
MODELS = [
    (
        "qwen3_moe",
        dict(
            head_dim=16,
            intermediate_size=64,
            moe_intermediate_size=32,
            num_experts=3,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            mlp_only_layers=[1],
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
        "q8_0",
        "byte-level",
    ),
    (
        "qwen2_moe",
        dict(
            intermediate_size=64,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=64,
            num_experts=3,
            num_experts_per_tok=2,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
        "f16",
        "byte-level",
    ),
    (
        "mixtral",
        dict(
            intermediate_size=32,
            num_local_experts=3,
            num_experts_per_tok=2,
            rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
        ),
        "q4_0",
        "byte-fallback",
    ),
    ("olmoe", dict(intermediate_size=32, num_experts=3, num_experts_per_tok=2, clip_qkv=7.5), "bf16", "byte-level"),
    (
        "phimoe",
        dict(
            intermediate_size=32,
            num_local_experts=3,
            num_experts_per_tok=2,
            attention_bias=True,
            lm_head_bias=True,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": FACTORS,
                "long_factor": [2 * x for x in FACTORS],
                "short_mscale": 1.25,
                "long_mscale": 1.5,
                "original_max_position_embeddings": 32,
            },
        ),
        "q5_1",
        "byte-fallback",
    ),
    (
        "granitemoe",
        dict(
            intermediate_size=32,
            num_local_experts=3,
            num_experts_per_tok=2,
            tie_word_embeddings=True,
            attention_multiplier=0.25,
            embedding_multiplier=12.0,
            residual_multiplier=0.22,
            logits_scaling=6.0,
        ),
        "q5_0",
        "byte-level",
    ),
]

GOLDENS = (
    "qwen3_moe qwen2_moe mixtral olmoe phimoe granitemoe glm4_moe ernie4_5_moe minimax_m2 deepseek_v2 deepseek_v3"
    " glm4_moe_lite gpt_oss llama4 gemma4 qwen3_next qwen3_5_moe_text lfm2_moe"
).split()

TYPES = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()


def described(path):
    """Tensors of a file as gguf-py reads them, row-major."""
    return [
        {
            "name": t.name,
            "dtype": t.tensor_type.name.lower(),
            "shape": [int(n) for n in reversed(t.shape)],
            "offsetBytes": int(t.data_offset),
            "sizeBytes": int(t.n_bytes),
        }
        for t in gguf.GGUFReader(path).tensors
    ]


def write_model(model_type, values, type_name, tokenizer_name):
    torch.manual_seed(7)
    config = AutoConfig.for_model(model_type, **{**SIZES, **values})
    model = AutoModelForCausalLM.from_config(config)
    tokenizer = json.loads((FIXTURES / "tokenizers" / f"{tokenizer_name}.json").read_text())["tokenizer"]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = OUT / f"{model_type}.gguf"
        convert(folder, path, type_name, tokenizer=tokenizer, chat_template="{{ messages[0].content }}{{ eos_token }}")
        saved = json.loads((Path(folder) / "config.json").read_text())
    expected = {"config": saved, "tokenizer": tokenizer_name, "tensors": described(path)}
    (OUT / f"{model_type}.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(f"wrote {path.name}: {path.stat().st_size} bytes")


def write_types():
    path = OUT / "types.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    random = np.random.default_rng(7)
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if name in ("F32", "F16"):
            writer.add_tensor(name, np.zeros((3, 5), dtype=np.float32 if name == "F32" else np.float16))
        else:
            row = 512 // block * size
            data = random.integers(0, 256, (3, row), dtype=np.uint8)
            writer.add_tensor(name, data, raw_shape=data.shape, raw_dtype=kind)
    writer.add_array("test.i8", [1, 2, 3])
    writer.add_array("test.texts", ["a", "", "\u2581\u00e9"])
    writer.add_array("test.flags", [True, False])
    writer.add_float64("test.f64", 0.1)
    writer.add_int64("test.i64", -5)
    writer.add_uint64("test.u64", 2**60 + 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (OUT / "types.json").write_text(json.dumps({"tensors": described(path)}, indent=1) + "\n")
    print(f"wrote {path.name}: {path.stat().st_size} bytes")


def write_split():
    writer = gguf.GGUFWriter(OUT / "split.gguf", "llama", split_max_tensors=2)
    for i in range(5):
        writer.add_tensor(f"tensor.{i}", np.full((2, 4), i, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print("wrote", *sorted(path.name for path in OUT.glob("split*")))


def write_goldens():
    """The golden checkpoints themselves, in float32: their recorded tokens must come out of these files too."""
    goldens = FIXTURES.parent / "golden" / "fixtures"
    (OUT / "golden").mkdir(exist_ok=True)
    for name in GOLDENS:
        path = OUT / "golden" / f"{name}.gguf"
        convert(goldens / name, path, "f32", pre="gpt-2")
        print(f"wrote golden/{path.name}: {path.stat().st_size} bytes")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        write_model(*model)
    write_types()
    write_split()
    write_goldens()


if __name__ == "__main__":
    main()
