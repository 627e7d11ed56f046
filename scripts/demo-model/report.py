"""Turns the numbers of evaluate.py into the tables of docs/demo-model.md, between its two marker comments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

RULES = ["as trained", "top-2", "top-1", "equal weights", "random experts"]
BEGIN, END = "<!-- evaluate.py: begin -->", "<!-- evaluate.py: end -->"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] + ["---:"] * (len(head) - 1)) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def loss_table(rows: list[dict]) -> str:
    head = [
        "domain",
        "held-out tokens",
        "loss (nats/token)",
        "perplexity",
        "bits/character",
        "drawn but seen in training",
    ]
    return table(
        head,
        [
            [
                r["domain"],
                str(r["tokens"]),
                f"{r['loss']:.3f}",
                f"{2.718281828 ** r['loss']:.2f}",
                f"{r['bits_per_character']:.3f}",
                f"{r['repeated']:.0%}",
            ]
            for r in rows
        ],
    )


def routing_table(rows: list[dict]) -> str:
    return table(["domain", *RULES], [[r["domain"], *(f"{r[rule]:.3f}" for rule in RULES)] for r in rows])


def information_table(counts: torch.Tensor, information: Callable) -> str:
    """counts [D, L, E]."""
    rows = []
    for layer in range(counts.shape[1]):
        bits, share = information(counts[:, layer])
        load = (counts[:, layer] / counts[:, layer].sum(1, keepdim=True)).mean(0)
        own = (counts[:, layer] / counts[:, layer].sum(1, keepdim=True)).sort(1, descending=True).values
        rows.append(
            [
                str(layer),
                f"{bits:.3f}",
                f"{share:.0%}",
                f"{own[:, :4].sum(1).mean():.0%}",
                f"{load.max() * load.numel():.2f}",
                f"{load.min() * load.numel():.2f}",
            ]
        )
    head = [
        "layer",
        "I(domain; expert) in bits",
        "of H(domain)",
        "share of a domain's 4 busiest experts",
        "busiest expert (mean = 1)",
        "idlest expert",
    ]
    return table(head, rows)


def favourites_table(domains: list[str], counts: torch.Tensor) -> str:
    """For every domain and layer the three experts that do most of its work, with their shares."""
    rows = []
    for d, domain in enumerate(domains):
        cells = []
        for layer in range(counts.shape[1]):
            share = counts[d, layer] / counts[d, layer].sum()
            best = share.topk(3)
            cells.append(
                ", ".join(f"{i}:{v:.0%}" for v, i in zip(best.values.tolist(), best.indices.tolist()))
            )
        rows.append([domain, *cells])
    return table(["domain", *(f"layer {i}" for i in range(counts.shape[1]))], rows)


def sections(steps: int, seen: int, rows: list[dict], counts: torch.Tensor, information: Callable) -> str:
    tokens = sum(r["tokens"] for r in rows)
    mean = sum(r["loss"] * r["tokens"] for r in rows) / tokens
    return (
        f"### Held-out loss\n\nAfter {steps} steps; training saw {seen} different documents. Mean over all rows, by tokens: "
        f"{mean:.3f} nats/token.\n\n{loss_table(rows)}\n"
        f"### What routing is worth\n\nLoss in nats/token on 15 documents of each domain, with routing disturbed in every layer: only the first two "
        f"or the first of the four experts (weights renormalised), all four with equal weights, four random experts.\n\n{routing_table(rows)}\n"
        f"### How experts specialise\n\nMutual information between a token's domain and the expert it is sent to, every domain weighted alike "
        f"(0: experts ignore domains; 100% of H(domain): the expert gives the domain away). An expert that did a "
        f"16th of the work would have the load 1; four experts chosen blindly do 25% of a domain's work.\n\n"
        f"{information_table(counts, information)}\n"
        f"The three busiest experts of each domain (number: share of the domain's work in that layer):\n\n"
        f"{favourites_table([r['domain'] for r in rows], counts)}"
    )


def fixture_line(expected: dict) -> str:
    return (
        f"\n`test/golden/fixtures/demo-held-out.txt`: {expected['tokens']} tokens; in windows of {expected['window']} tokens "
        f"transformers gives {expected['lossNats']:.4f} nats/token, perplexity {expected['perplexity']:.4f} "
        f"(`demo-held-out.json`).\n"
    )


def replace_section(path: Path, text: str) -> None:
    """Puts the text between the markers; throws where the file lacks them."""
    old = path.read_text(encoding="utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        raise ValueError(f"{path}: expected the lines {BEGIN} and {END}")
    before, after = old.split(BEGIN)[0], old.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
