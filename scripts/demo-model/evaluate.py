"""Measures the exported demo model on held-out text with transformers and writes the tables of docs/demo-model.md.

    python scripts/demo-model/evaluate.py --work DIR [--model models/demo] [--write]

Held-out documents come from the same grammars with another seed; a document that also occurs in the training text is
thrown away (which needs the tokenizer and step count of DIR). Reported: loss per domain, what the loss becomes when
routing is disturbed, and how experts specialise by domain. --write also renews the held-out text and its expected loss
among the golden fixtures.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import report
from corpus import MAKERS, SHARES, document
from tokenizer import END_OF_TEXT
from train import TOKENS_PER_STEP, domain_weights, row_length, step_documents

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT_BYTES = 60_000
DOCUMENTS_PER_DOMAIN = 60


def training_texts(tokenizer: Tokenizer, seed: int, steps: int) -> set[int]:
    """Hashes of every document that training has seen, in whole or in part."""
    weights, seen = domain_weights(tokenizer, seed), set()
    for step in range(steps):
        length = row_length(step, steps)
        rows, filled = 0, 0
        for text, ids in step_documents(tokenizer, weights, seed, step):
            seen.add(hash(text))
            filled += len(ids) + 1
            if filled > length:
                rows, filled = rows + 1, 0
            if rows == TOKENS_PER_STEP // length:
                break
    return seen


def held_out(domain: str, count: int, seen: set[int]) -> tuple[list[str], float]:
    """New documents of a domain, and the share of drawn documents that training had seen."""
    rng, documents, drawn = random.Random(f"held-out {domain}"), [], 0
    while len(documents) < count:
        text = document(domain, rng)
        drawn += 1
        if hash(text) not in seen:
            documents.append(text)
    return documents, 1 - count / drawn


class Routing:
    """Watches, and where asked disturbs, the routers of a Qwen3MoeForCausalLM."""

    def __init__(self, model: torch.nn.Module):
        self.counts: torch.Tensor | None = None
        self.rule = "as trained"
        self.generator = torch.Generator().manual_seed(0)
        routers = [layer.mlp.gate for layer in model.model.layers]
        self.shape = (len(routers), model.config.num_experts)
        for index, router in enumerate(routers):
            router.register_forward_hook(lambda _m, _i, out, index=index: self.route(index, out))

    def start(self, rule: str = "as trained") -> None:
        self.rule, self.counts = rule, torch.zeros(self.shape)

    def route(self, layer: int, out: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        logits, weights, ids = out
        if self.rule == "random experts":
            ids = torch.rand(logits.shape, generator=self.generator).topk(ids.shape[1]).indices
        elif self.rule.startswith("top-"):
            kept = torch.arange(ids.shape[1]) < int(self.rule.removeprefix("top-"))
            weights = weights * kept / (weights * kept).sum(-1, keepdim=True)
        elif self.rule == "equal weights":
            weights = torch.full_like(weights, 1 / ids.shape[1])
        self.counts[layer] += torch.bincount(ids.flatten(), minlength=self.shape[1])
        return logits, weights, ids


def losses(model: torch.nn.Module, tokenizer: Tokenizer, texts: list[str]) -> tuple[float, int]:
    """Summed cross entropy in nats and the number of predicted tokens; the end-of-text token counts."""
    end, total, count = tokenizer.token_to_id(END_OF_TEXT), 0.0, 0
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids + [end]])
        logits = model(ids[:, :-1]).logits[0]
        total += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return total, count


def mutual_information(counts: torch.Tensor) -> tuple[float, float]:
    """counts [D, E] -> I(domain; expert) in bits with every domain weighted alike, and its share of H(domain)."""
    joint = counts / counts.sum(1, keepdim=True) / counts.shape[0]
    product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    ratio = torch.where(joint > 0, joint / product, torch.ones_like(joint))
    bits = (joint * ratio.log2()).sum().item()
    return bits, bits / math.log2(counts.shape[0])


def held_out_file(texts: dict[str, list[str]]) -> str:
    """Documents of all domains in the proportion of training, each followed by the end-of-text token."""
    rng, parts = random.Random("held-out file"), []
    chances = [SHARES[d] / (sum(map(len, texts[d])) / len(texts[d])) for d in MAKERS]
    rest: dict[str, Iterator[str]] = {d: iter(texts[d]) for d in MAKERS}
    while sum(map(len, parts)) < HELD_OUT_BYTES:
        text = next(rest[rng.choices(list(MAKERS), chances)[0]], None)
        if text is None:
            raise RuntimeError("too few held-out documents for the file")
        parts.append(text + END_OF_TEXT)
    return "".join(parts)


def windows_loss(model: torch.nn.Module, ids: list[int], window: int) -> tuple[float, int]:
    """Mean loss over windows that share no token: each predicts its tokens from its own first token on."""
    total, count = 0.0, 0
    for begin in range(0, len(ids) - 1, window):
        part = torch.tensor([ids[begin : begin + window]])
        if part.shape[1] < 2:
            break
        logits = model(part[:, :-1]).logits[0]
        total += F.cross_entropy(logits, part[0, 1:], reduction="sum").item()
        count += part.shape[1] - 1
    return total / count, count


def greedy(model: torch.nn.Module, tokenizer: Tokenizer, prompt: str, count: int) -> dict:
    """What greedy decoding in float32 makes of a prompt, and how close the closest choice was."""
    ids = tokenizer.encode(prompt).ids
    tokens, gap = torch.tensor([ids]), float("inf")
    for _ in range(count):
        logits = model(tokens).logits[0, -1]
        best = logits.topk(2)
        gap = min(gap, ((best.values[0] - best.values[1]) / logits.abs().max()).item())
        tokens = torch.cat((tokens, best.indices[:1][None]), dim=1)
    generated = tokens[0, len(ids) :].tolist()
    return {
        "prompt": prompt,
        "inputIds": ids,
        "greedyIds": generated,
        "text": tokenizer.decode(generated, skip_special_tokens=False),
        "smallestLogitGap": round(gap, 6),
    }


def write_fixture(model: torch.nn.Module, tokenizer: Tokenizer, text: str, folder: Path) -> dict:
    """demo-held-out.txt, what transformers computes for it, and a greedy continuation in demo-greedy.json."""
    ids = tokenizer.encode(text).ids
    loss, count = windows_loss(model, ids, 512)
    expected = {
        "tokens": len(ids),
        "window": 512,
        "predictedTokens": count,
        "lossNats": round(loss, 6),
        "perplexity": round(math.exp(loss), 6),
    }
    (folder / "demo-held-out.txt").write_text(text, encoding="utf-8")
    (folder / "demo-held-out.json").write_text(json.dumps(expected, indent=2) + "\n")
    story = greedy(model, tokenizer, "Once upon a time", 64)
    (folder / "demo-greedy.json").write_text(json.dumps(story, ensure_ascii=False) + "\n", encoding="utf-8")
    return expected


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--write", action="store_true", help="renew docs/demo-model.md and the held-out fixture"
    )
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    steps = torch.load(args.work / "checkpoint.pt", mmap=True)["step"]
    seen = training_texts(tokenizer, args.seed, steps)
    routing, rows, counts, texts = Routing(model), [], [], {}
    for domain in MAKERS:
        texts[domain], repeated = held_out(domain, DOCUMENTS_PER_DOMAIN, seen)
        routing.start()
        nats, tokens = losses(model, tokenizer, texts[domain])
        counts.append(routing.counts)
        row = {"domain": domain, "repeated": repeated, "tokens": tokens, "loss": nats / tokens}
        row["bits_per_character"] = nats / math.log(2) / sum(map(len, texts[domain]))
        for rule in report.RULES:
            routing.start(rule)
            nats, tokens = losses(model, tokenizer, texts[domain][:15])
            row[rule] = nats / tokens
        rows.append(row)
    routing.start()
    text = report.sections(steps, len(seen), rows, torch.stack(counts), mutual_information)
    if args.write:
        expected = write_fixture(
            model, tokenizer, held_out_file(texts), ROOT / "test" / "golden" / "fixtures"
        )
        text += report.fixture_line(expected)
        report.replace_section(ROOT / "docs" / "demo-model.md", text)
    print(text)


if __name__ == "__main__":
    main()
