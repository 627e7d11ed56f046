"""Checkpoints with float8 matrices and a factor for each 128 x 128 block, as DeepSeek-V3 is published.

Called by checkpoint.py for fixtures with the option `fp8`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

BLOCK = 128
LARGEST = torch.finfo(torch.float8_e4m3fn).max


def is_matrix(name: str) -> bool:
    return name.endswith("proj.weight") or name.endswith("proj_with_mqa.weight")


def encode(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of the matrix's shape and the factors of its blocks."""
    rows, cols = weight.shape
    factors = torch.empty(-(-rows // BLOCK), -(-cols // BLOCK))
    codes = torch.empty(rows, cols, dtype=torch.float8_e4m3fn)
    for i in range(factors.shape[0]):
        for j in range(factors.shape[1]):
            part = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            # A power of two, so that the products are exact in bfloat16.
            factors[i, j] = 2.0 ** torch.ceil(torch.log2(weight[part].abs().max() / LARGEST))
            codes[part] = (weight[part] / factors[i, j]).to(torch.float8_e4m3fn)
    return codes, factors


def decode(codes: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    spread = factors.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return codes.float() * spread[: codes.shape[0], : codes.shape[1]]


def rounded(model: torch.nn.Module) -> torch.nn.Module:
    """The model with its matrices on values that float8 has."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        tensors = {n: decode(*encode(t)) if is_matrix(n) else t for n, t in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
        again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    again.set_experts_implementation("eager")
    return again


def rewrite(folder: Path) -> None:
    """The saved checkpoint with its matrices encoded, and its config saying so."""
    path = folder / "model.safetensors"
    tensors = {}
    for name, value in load_file(path).items():
        if is_matrix(name):
            tensors[name], tensors[f"{name}_scale_inv"] = encode(value)
        else:
            tensors[name] = value
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
