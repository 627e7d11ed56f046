"""Trains the demo model on generated text and leaves checkpoints; export.py makes the model folder from the last one.

    python scripts/demo-model/train.py --work DIR [--steps 1260] [--threads 1] [--no-compile]

Interrupted training goes on from the last checkpoint in DIR when started again. Every step's text depends only on the
seed and the step's number.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import time
from pathlib import Path

import torch
from corpus import SHARES, document
from optimizer import Muon
from tokenizer import END_OF_TEXT, train_tokenizer
from tokenizers import Tokenizer

import model as model_module
from model import DemoModel, ModelConfig

TOKENS_PER_STEP = 8192
LONG_SHARE = 0.05  # the last twentieth of the steps trains on rows of 512 tokens, the rest on rows of 256


def domain_weights(tokenizer: Tokenizer, seed: int) -> dict[str, float]:
    """Chance of a document per domain so that each domain gets its share of tokens."""
    rng = random.Random(f"weights {seed}")
    weights = {}
    for domain, share in SHARES.items():
        encodings = tokenizer.encode_batch([document(domain, rng) for _ in range(200)])
        weights[domain] = share / sum(len(e.ids) for e in encodings)
    return weights


def step_documents(tokenizer: Tokenizer, weights: dict[str, float], seed: int, step: int):
    """Endless (text, token ids) pairs that training step `step` draws from."""
    rng = random.Random(f"train {seed} {step}")
    names, chances = list(weights), list(weights.values())
    while True:
        texts = [document(d, rng) for d in rng.choices(names, chances, k=32)]
        for text, encoding in zip(texts, tokenizer.encode_batch(texts)):
            yield text, encoding.ids


def row_length(step: int, steps: int) -> int:
    return 512 if step >= steps * (1 - LONG_SHARE) else 256


def make_batch(
    tokenizer: Tokenizer, weights: dict[str, float], seed: int, step: int, length: int
) -> torch.Tensor:
    """[rows, length + 1] token ids; each row starts with a document's start and is cut at its end."""
    end, rows, row = tokenizer.token_to_id(END_OF_TEXT), [], []
    for _, ids in step_documents(tokenizer, weights, seed, step):
        row += [*ids, end]
        if len(row) > length:
            rows.append(row[: length + 1])
            row = []
        if len(rows) == TOKENS_PER_STEP // length:
            return torch.tensor(rows)
    raise AssertionError("documents never end")


def schedule(step: int, steps: int) -> float:
    """Learning rate factor: warm-up over 50 steps, 1, then linear to 0 over the last 45 steps in a hundred."""
    return min((step + 1) / 50, 1.0, (steps - step) / (0.45 * steps))


def compile_model(model: DemoModel) -> None:
    """Fuses the elementwise work; doubles the speed on a CPU. Each row length is compiled on its own."""
    for layer in model.layers:
        layer.route = torch.compile(layer.route, dynamic=False)
        layer.combine = torch.compile(layer.combine, dynamic=False)
    model.norm.compile(dynamic=False)
    model_module.mean_loss = torch.compile(model_module.mean_loss, dynamic=False)
    model_module.swiglu = torch.compile(model_module.swiglu)
    model_module.swiglu_backward = torch.compile(model_module.swiglu_backward)


def split_parameters(model: DemoModel) -> tuple[dict[str, torch.nn.Parameter], list[torch.nn.Parameter]]:
    matrices = {
        n: p
        for n, p in model.named_parameters()
        if p.ndim >= 2 and n != "embed_tokens" and not n.endswith(".gate")
    }
    return matrices, [p for n, p in model.named_parameters() if n not in matrices]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1260)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--muon-lr", type=float, default=3e-3)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    config = ModelConfig()
    tokenizer_file, checkpoint_file = args.work / "tokenizer.json", args.work / "checkpoint.pt"
    if not tokenizer_file.exists():
        train_tokenizer(config.vocab_size, args.seed).save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    weights = domain_weights(tokenizer, args.seed)
    model = DemoModel(config, args.seed)
    matrices, rest = split_parameters(model)
    muon, adam = (
        Muon(matrices),
        torch.optim.AdamW(rest, lr=args.adam_lr, betas=(0.9, 0.98), weight_decay=0.01),
    )
    start = 0
    if checkpoint_file.exists():
        saved = torch.load(checkpoint_file)
        model.load_state_dict(saved["model"])
        muon.load_state_dict(saved["muon"])
        adam.load_state_dict(saved["adam"])
        start = saved["step"]
    if not args.no_compile:
        compile_model(model)
    began, losses, balances = time.time(), [], []
    for step in range(start, args.steps):
        batch = make_batch(tokenizer, weights, args.seed, step, row_length(step, args.steps))
        loss, balance = model(batch[:, :-1], batch[:, 1:])
        (loss + config.router_aux_loss_coef * balance).backward()
        rate = schedule(step, args.steps)
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        muon.step(args.muon_lr * rate)
        for group in adam.param_groups:
            group["lr"] = args.adam_lr * rate
        adam.step()
        for p in model.parameters():
            p.grad = None
        losses.append(loss.item())
        balances.append(balance.item())
        if (step + 1) % 20 == 0:
            print(
                f"step {step + 1}/{args.steps} loss {sum(losses) / len(losses):.4f} balance {sum(balances) / len(balances):.4f} "
                f"{time.time() - began:.0f} s",
                flush=True,
            )
            losses, balances = [], []
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            partial = checkpoint_file.with_suffix(".partial")
            torch.save(
                {
                    "step": step + 1,
                    "config": dataclasses.asdict(config),
                    "model": model.state_dict(),
                    "muon": muon.state_dict(),
                    "adam": adam.state_dict(),
                },
                partial,
            )
            partial.replace(checkpoint_file)


if __name__ == "__main__":
    main()
