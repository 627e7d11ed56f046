"""Writes test/fixtures/quantize/: a small random Qwen3-MoE checkpoint in bfloat16 and what gguf-py makes of it in Q8_0 and
Q4_0, to which loading with `quantize` is held. In the Q4_0 file the output matrix is Q8_0: gguf-py cannot write the Q6_K
that quantisers give it. Read by test/engine/quantize.test.ts.

Usage: python scripts/goldens/quantize_fixtures.py   (needs torch, transformers, safetensors, gguf)
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
from byte_tokenizer import build  # noqa: E402
from checkpoint import fill  # noqa: E402
from fixtures import TOKENIZER_SIZE  # noqa: E402
from hub_to_gguf import convert  # noqa: E402

OUT = Path(__file__).parents[2] / "test" / "fixtures" / "quantize"
CONFIG = dict(
    vocab_size=TOKENIZER_SIZE,
    hidden_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    intermediate_size=64,
    moe_intermediate_size=64,
    num_experts=4,
    num_experts_per_tok=2,
    norm_topk_prob=True,
    max_position_embeddings=128,
    bos_token_id=None,
    eos_token_id=0,
    pad_token_id=None,
    tie_word_embeddings=False,
)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    checkpoint = OUT / "checkpoint"
    tokenizer = build(TOKENIZER_SIZE)
    config = AutoConfig.for_model("qwen3_moe", **CONFIG)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fill(model, 5, {})
    model.to(torch.bfloat16).save_pretrained(checkpoint)
    (checkpoint / "tokenizer.json").write_text(tokenizer.to_str())
    (checkpoint / "tokenizer_config.json").write_text("{}\n")
    for kind in ("q8_0", "q4_0"):
        convert(
            checkpoint,
            OUT / f"{kind}.gguf",
            kind,
            tokenizer=json.loads(tokenizer.to_str()),
            pre="gpt-2",
            output_type="q8_0",
        )


if __name__ == "__main__":
    main()
