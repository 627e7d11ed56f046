"""Writes the trained demo model as a folder in the Hub's format and proves that transformers computes the same.

    python scripts/demo-model/export.py --work DIR [--out models/demo]

Reads the checkpoint and the tokenizer that train.py left in DIR. Weights are rounded to bfloat16; logits of the
rounded weights must agree between model.py and transformers (both in float32) to 1e-4.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM

from corpus import MAKERS, document
from model import DemoModel, ModelConfig
from tokenizer import END_OF_TEXT, IM_END, IM_START, SPECIAL

ROOT = Path(__file__).resolve().parents[2]
MAX_FOLDER_BYTES = 16_000_000
MAX_LOGIT_DIFFERENCE = 1e-4
CHAT_TEMPLATE = """{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def hub_config(c: ModelConfig, tokenizer: Tokenizer) -> Qwen3MoeConfig:
    return Qwen3MoeConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        intermediate_size=c.moe_intermediate_size * c.num_experts_per_tok,
        num_hidden_layers=c.num_hidden_layers,
        num_attention_heads=c.num_attention_heads,
        num_key_value_heads=c.num_key_value_heads,
        head_dim=c.head_dim,
        max_position_embeddings=c.max_position_embeddings,
        rms_norm_eps=c.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        num_experts=c.num_experts,
        num_experts_per_tok=c.num_experts_per_tok,
        moe_intermediate_size=c.moe_intermediate_size,
        norm_topk_prob=True,
        router_aux_loss_coef=c.router_aux_loss_coef,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.token_to_id(END_OF_TEXT),
        dtype="bfloat16",
    )


def hub_state(model: DemoModel) -> dict[str, torch.Tensor]:
    """model.py's names turned into those of Qwen3MoeForCausalLM."""
    state = {"model.embed_tokens.weight": model.embed_tokens, "lm_head.weight": model.embed_tokens}
    for name, p in model.named_parameters():
        if name == "embed_tokens":
            continue
        name = name.replace("mlp.gate_up_proj", "mlp.experts.gate_up_proj")
        name = name.replace("mlp.down_proj", "mlp.experts.down_proj")
        state[f"model.{name}" + (".weight" if name.endswith("mlp.gate") else "")] = p
    return state


def write_tokenizer(work: Path, out: Path, max_length: int) -> None:
    shutil.copy(work / "tokenizer.json", out / "tokenizer.json")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "bos_token": None,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": [IM_START, IM_END],
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(i): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for i, token in enumerate(SPECIAL)
        },
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def check(model: DemoModel, tokenizer: Tokenizer, out: Path) -> float:
    """Largest logit difference between model.py and the folder as transformers loads it; throws if too large."""
    loaded = AutoModelForCausalLM.from_pretrained(
        out, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    rng, largest = random.Random(0), 0.0
    for domain in MAKERS:
        ids = torch.tensor([tokenizer.encode(document(domain, rng)).ids])
        hidden, _ = model.hidden(ids, torch.float32)
        difference = (loaded(ids).logits - hidden @ model.embed_tokens.T).abs().max().item()
        largest = max(largest, difference)
    if largest > MAX_LOGIT_DIFFERENCE:
        raise RuntimeError(f"logits differ by {largest}, expected at most {MAX_LOGIT_DIFFERENCE}")
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "demo")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    saved = torch.load(args.work / "checkpoint.pt")
    model = DemoModel(ModelConfig(**saved["config"]))
    model.load_state_dict(saved["model"])
    for p in model.parameters():
        p.copy_(p.bfloat16().float())
    tokenizer = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    hub = Qwen3MoeForCausalLM(hub_config(model.c, tokenizer))
    hub.load_state_dict(hub_state(model))
    end = [tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(IM_END)]
    hub.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=end[0], do_sample=True, temperature=0.7, top_p=0.95
    )
    args.out.mkdir(parents=True, exist_ok=True)
    hub.to(torch.bfloat16).save_pretrained(args.out)
    write_tokenizer(args.work, args.out, model.c.max_position_embeddings)
    difference = check(model, tokenizer, args.out)
    size = sum(f.stat().st_size for f in args.out.iterdir())
    if size > MAX_FOLDER_BYTES:
        raise RuntimeError(f"{args.out} takes {size} bytes, expected at most {MAX_FOLDER_BYTES}")
    print(
        f"step {saved['step']}, {size / 1e6:.1f} MB, largest logit difference to transformers {difference:.1e}"
    )


if __name__ == "__main__":
    main()
