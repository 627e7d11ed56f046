"""Prints texts that the demo model writes, by transformers: python scripts/demo-model/sample.py [--model DIR] PROMPT...

A prompt that starts with 'user:' goes through the chat template.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parents[2] / "models" / "demo")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.7)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    torch.manual_seed(args.seed)
    sampling = {"do_sample": args.temperature > 0, "temperature": args.temperature or None, "top_p": 0.95}
    for prompt in args.prompts:
        for _ in range(args.count):
            text = prompt
            if prompt.startswith("user:"):
                message = {"role": "user", "content": prompt[5:].strip()}
                text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, return_tensors="pt").input_ids
            out = model.generate(ids, max_new_tokens=600, **sampling)[0]
            ended = int(out[-1]) in model.generation_config.eos_token_id
            print(
                f"--- {len(out)} tokens, {'ended' if ended else 'cut'}\n{tokenizer.decode(out)}\n", flush=True
            )


if __name__ == "__main__":
    main()
