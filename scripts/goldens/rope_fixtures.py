"""Writes test/fixtures/rope.json: inverse frequencies and attention factors of transformers' rope functions for
configs of every scaling type and several sequence lengths. Read by test/unit/model/rope.test.ts.

Usage: python scripts/goldens/rope_fixtures.py   (needs torch and transformers 5)
"""

import json
from pathlib import Path

import torch
from transformers import Qwen3MoeConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeRotaryEmbedding

HEAD_DIM = 32
HALF = HEAD_DIM // 2
FACTORS = {"short_factor": [1.0 + 0.05 * i for i in range(HALF)], "long_factor": [1.5 + 0.7 * i for i in range(HALF)]}

# name, max_position_embeddings, rope_parameters, sequence lengths
CASES = [
    ("default", 4096, {"rope_type": "default", "rope_theta": 1e6}, [1]),
    ("default-theta-5e4", 4096, {"rope_type": "default", "rope_theta": 50000.0}, [1]),
    ("linear", 4096, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}, [1]),
    ("dynamic", 256, {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}, [1, 256, 257, 300, 1000]),
    (
        "yarn",
        32768,
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 8192},
        [1],
    ),
    (
        "yarn-mscale-untruncated",
        4096,
        {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 32.0,
            "original_max_position_embeddings": 128,
            "mscale": 0.7,
            "mscale_all_dim": 1.3,
            "beta_fast": 24.0,
            "beta_slow": 2.0,
            "truncate": False,
        },
        [1],
    ),
    (
        "yarn-attention-factor",
        4096,
        {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 512,
            "attention_factor": 0.9,
        },
        [1],
    ),
    (
        "longrope",
        1024,
        {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64, **FACTORS},
        [1, 64, 65, 900],
    ),
    (
        "longrope-factor",
        1024,
        {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 64,
            **FACTORS,
        },
        [1, 900],
    ),
    (
        "llama3",
        16384,
        {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 512,
        },
        [1],
    ),
    (
        "llama3-without-ramp",
        16384,
        {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 16.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 1.0,
            "original_max_position_embeddings": 512,
        },
        [1],
    ),
    (
        "proportional",
        4096,
        {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.3, "factor": 2.0},
        [1],
    ),
]


def frequencies(config, length):
    rope_type = config.rope_parameters["rope_type"]
    if rope_type == "default":
        return Qwen3MoeRotaryEmbedding.compute_default_rope_parameters(config)
    seq_len = torch.tensor(length) if rope_type == "dynamic" else length
    return ROPE_INIT_FUNCTIONS[rope_type](config, seq_len=seq_len)


def main():
    cases = []
    for name, max_positions, parameters, lengths in CASES:
        config = Qwen3MoeConfig(head_dim=HEAD_DIM, max_position_embeddings=max_positions, rope_parameters=dict(parameters))
        values = []
        for length in lengths:
            inverse, attention_factor = frequencies(config, length)
            values.append(
                {
                    "sequenceLength": length,
                    "inverseFrequencies": [float(x) for x in inverse],
                    "attentionFactor": float(attention_factor),
                }
            )
        cases.append(
            {
                "name": name,
                "config": {"head_dim": HEAD_DIM, "max_position_embeddings": max_positions, "rope_parameters": parameters},
                "values": values,
            }
        )
    path = Path(__file__).parents[2] / "test" / "fixtures" / "rope.json"
    path.write_text(json.dumps({"cases": cases}, indent=1) + "\n")
    print(f"wrote {path}: {len(cases)} cases")


if __name__ == "__main__":
    main()
