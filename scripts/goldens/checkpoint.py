"""Random weights with a decisive router and spread logits, and saving them under published tensor names.

Called by make_goldens.py. Config files come in two spellings: config.json as transformers 5 writes it and
config.v4.json as transformers 4 wrote it.
"""

from __future__ import annotations

import json
from pathlib import Path

import fp8_checkpoint
import mxfp4_checkpoint
import torch
from fixtures import Fixture
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

# model types whose transformers 4 config class said num_experts; the others said num_local_experts
NUM_EXPERTS_KEY = {
    name: "num_experts"
    for name in ("qwen3_moe", "qwen2_moe", "olmoe", "qwen3_next", "qwen3_5_moe_text", "lfm2_moe")
}


def fill(model: torch.nn.Module, seed: int, options: dict) -> None:
    """Normal weights scaled by fan-in; norms near 1; biases visible; the router three times as steep."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("A_log"):
            value = 0.5 * noise
        elif "conv" in name and p.ndim == 3:
            value = 0.8 * noise
        elif p.ndim == 1 and is_around_zero(model, name):
            value = 0.2 * noise
        elif p.ndim == 1:
            near_one = ("norm" in name and name.endswith("weight")) or name.endswith("scale")
            value = 1 + 0.2 * noise if near_one else 0.3 * noise
        elif "embed_tokens" in name:
            value = options.get("embedding_std", 0.4) * noise
        else:
            gain, fan_in = 1.2, p.shape[-1]
            if name.endswith(("mlp.gate.weight", "router.weight", "feed_forward.gate.weight")):
                gain = 3.0 * options.get("router_gain", 1.0)
            elif name.endswith("router.proj.weight"):
                # The router's input is divided by this root.
                gain = 3.0 * fan_in**0.5
            elif "experts" in name:
                gain = 1.6
                if "feed_forward.experts" in name:
                    fan_in = p.shape[-2]
            elif "lm_head" in name:
                gain = 2.0
            value = gain * fan_in**-0.5 * noise
        with torch.no_grad():
            p.copy_(value)
    for name, buffer in model.named_buffers():
        # Large enough to change who is chosen.
        if name.endswith(("e_score_correction_bias", "expert_bias")):
            buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
        if name.endswith("layer_scalar"):
            buffer.copy_(1 + 0.2 * torch.randn(buffer.shape, generator=generator))


def auto_class(config) -> type:
    """Models of text and images have another loader."""
    return AutoModelForCausalLM if config.get_text_config() is config else AutoModelForImageTextToText


def is_around_zero(model: torch.nn.Module, name: str) -> bool:
    """Whether a norm adds one to its weight."""
    return type(model.get_submodule(name.rpartition(".")[0])).__name__ in ("Qwen3NextRMSNorm", "Qwen3_5MoeRMSNorm")


def build_model(fixture: Fixture, seed: int) -> torch.nn.Module:
    """A float32 model whose weights are already rounded to the fixture's dtype."""
    config = AutoConfig.for_model(fixture.architecture, **fixture.config)
    model = auto_class(config).from_config(config, attn_implementation="eager", dtype=torch.float32)
    model.set_experts_implementation("eager")
    fill(model, seed, fixture.options)
    if fixture.options.get("mxfp4"):
        mxfp4_checkpoint.round_experts(model)
    if fixture.options.get("fp8"):
        model = fp8_checkpoint.rounded(model)
    dtype = getattr(torch, fixture.dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(dtype).float())
    return model.eval()


def published_gemma4(config: dict) -> dict:
    """Gemma 4 came with transformers 5; its published configs name the full layers' heads otherwise."""
    old = dict(config)
    full = next(iter(old.pop("per_layer_config").values()))
    old["global_head_dim"] = full["head_dim"]
    old["num_global_key_value_heads"] = full.get("num_key_value_heads")
    return old


def v4_config(config: dict) -> dict:
    """The same settings in the keys of transformers 4."""
    if "text_config" in config:
        return {**config, "text_config": v4_config({"dtype": config["dtype"], **config["text_config"]})}
    if config["model_type"] == "gemma4_text":
        return published_gemma4(config)
    old = {
        k: v
        for k, v in config.items()
        if k not in ("rope_parameters", "dtype", "num_local_experts", "num_experts", "transformers_version")
    }
    rope = dict(config["rope_parameters"])
    old["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    if "partial_rotary_factor" in rope:
        factor = rope.pop("partial_rotary_factor")
        if config["model_type"] == "minimax_m2":
            old["rotary_dim"] = int(config["head_dim"] * factor)
        else:
            old["partial_rotary_factor"] = factor
    old["rope_scaling"] = (
        None
        if kind == "default"
        else {("type" if kind in ("linear", "dynamic", "longrope") else "rope_type"): kind, **rope}
    )
    if kind == "longrope":
        old["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
    old["torch_dtype"] = config["dtype"]
    count = config.get("num_local_experts", config.get("num_experts"))
    if count is not None:
        old[NUM_EXPERTS_KEY.get(config["model_type"], "num_local_experts")] = count
    old["transformers_version"] = "4.51.3"
    return dict(sorted(old.items()))


def save(model: torch.nn.Module, fixture: Fixture, folder: Path) -> None:
    """Writes config.json, config.v4.json, generation_config.json and the weights in the fixture's dtype."""
    dtype = getattr(torch, fixture.dtype)
    model.to(dtype).save_pretrained(folder, save_original_format=not fixture.stacked_names)
    model.to(torch.float32)
    if fixture.options.get("mxfp4"):
        mxfp4_checkpoint.rewrite(folder)
    if fixture.options.get("fp8"):
        fp8_checkpoint.rewrite(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.v4.json").write_text(json.dumps(v4_config(config), indent=2) + "\n")
    if fixture.shards > 1:
        shard(folder, fixture.shards)


def shard(folder: Path, count: int) -> None:
    """Cuts model.safetensors into `count` files with an index, as large checkpoints come."""
    single = folder / "model.safetensors"
    tensors = load_file(single)
    names, where = sorted(tensors), {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        part = names[i * len(names) // count : (i + 1) * len(names) // count]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(part, file))
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    single.unlink()
