"""gpt-oss checkpoints as they are published: experts in MXFP4, codes and scales apart, gate and up rows in turn.

Called by checkpoint.py for fixtures with the option `mxfp4`.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

KIND = gguf.GGMLQuantizationType.MXFP4
EXPERT_MATRICES = ("gate_up_proj", "down_proj")


def encode(weight: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of a matrix per expert [E, in, out]: codes [E, out, in / 32, 16], neighbours in a byte, and scales [E, out, in / 32]."""
    rows = np.ascontiguousarray(weight.transpose(1, 2).float().numpy())
    blocks = gguf.quants.quantize(rows, KIND).reshape(*rows.shape[:2], rows.shape[2] // 32, 17)
    halves = np.concatenate([blocks[..., 1:] & 15, blocks[..., 1:] >> 4], axis=-1)
    return halves[..., 0::2] | halves[..., 1::2] << 4, blocks[..., 0]


def round_experts(model: torch.nn.Module) -> None:
    """Puts the experts' matrices onto values that MXFP4 has."""
    for name, p in model.named_parameters():
        if name.endswith(EXPERT_MATRICES):
            rows = np.ascontiguousarray(p.transpose(1, 2).float().numpy())
            rounded = gguf.quants.dequantize(gguf.quants.quantize(rows, KIND), KIND)
            with torch.no_grad():
                p.copy_(torch.from_numpy(rounded.reshape(rows.shape)).transpose(1, 2))


def rewrite(folder: Path) -> None:
    """The saved checkpoint with its experts encoded, and its config saying so."""
    path = folder / "model.safetensors"
    tensors = {}
    for name, value in load_file(path).items():
        if name.endswith(EXPERT_MATRICES):
            blocks, scales = encode(value)
            tensors[f"{name}_blocks"] = torch.from_numpy(np.ascontiguousarray(blocks))
            tensors[f"{name}_scales"] = torch.from_numpy(np.ascontiguousarray(scales))
        else:
            tensors[name] = value
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": skipped}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
