"""The demo model's training-time twin of transformers' Qwen3MoeForCausalLM.

Same weights, names and arithmetic, but the expert block runs as one matmul per expert over tokens sorted by
expert, which makes training on a CPU several times faster. train.py trains it, export.py writes its weights in the
Hub format and checks the logits against transformers. It has no KV cache: it never generates.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ModelConfig:
    """Sizes under the names of the Hub's config.json."""

    vocab_size: int = 2048
    hidden_size: int = 192
    num_hidden_layers: int = 6
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 32
    num_experts: int = 16
    num_experts_per_tok: int = 4
    moe_intermediate_size: int = 96
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    router_aux_loss_coef: float = 0.01


def swiglu(pre: Tensor) -> Tensor:
    """[N, 2I] (gate, then up) -> silu(gate) * up [N, I]."""
    gate, up = pre.chunk(2, dim=-1)
    return (F.silu(gate.float()) * up.float()).to(pre.dtype)


def swiglu_backward(pre: Tensor, grad: Tensor) -> Tensor:
    """Gradient of swiglu with respect to its input: grad [N, I] -> [N, 2I]."""
    gate, up = pre.float().chunk(2, dim=-1)
    sig = torch.sigmoid(gate)
    act = gate * sig
    g = grad.float()
    return torch.cat((g * up * (sig + act - act * sig), g * act), dim=-1).to(pre.dtype)


class ExpertsFunction(torch.autograd.Function):
    """SwiGLU experts over tokens sorted by expert: x [N, H], gate_up [E, 2I, H], down [E, H, I] -> [N, H].

    Written by hand so that each matmul works on a contiguous run of rows and writes in place, with no per-expert
    gather and no autograd node per expert. `counts` lists how many rows belong to each expert.
    """

    @staticmethod
    def forward(ctx, x: Tensor, gate_up: Tensor, down: Tensor, counts: list[int]) -> Tensor:
        pre = x.new_empty(x.shape[0], gate_up.shape[1])
        out = torch.empty_like(x)
        begin = 0
        for expert, count in enumerate(counts):
            torch.mm(x[begin : begin + count], gate_up[expert].t(), out=pre[begin : begin + count])
            begin += count
        hidden = swiglu(pre)
        begin = 0
        for expert, count in enumerate(counts):
            torch.mm(hidden[begin : begin + count], down[expert].t(), out=out[begin : begin + count])
            begin += count
        ctx.save_for_backward(x, gate_up, down, pre)
        ctx.counts = counts
        return out

    @staticmethod
    def backward(ctx, grad_out: Tensor):
        x, gate_up, down, pre = ctx.saved_tensors
        hidden = swiglu(pre)
        grad_hidden = torch.empty_like(hidden)
        grad_down = torch.zeros_like(down)
        begin = 0
        for expert, count in enumerate(ctx.counts):
            rows = slice(begin, begin + count)
            torch.mm(grad_out[rows], down[expert], out=grad_hidden[rows])
            torch.mm(grad_out[rows].t(), hidden[rows], out=grad_down[expert])
            begin += count
        grad_pre = swiglu_backward(pre, grad_hidden)
        grad_x = torch.empty_like(x)
        grad_gate_up = torch.zeros_like(gate_up)
        begin = 0
        for expert, count in enumerate(ctx.counts):
            rows = slice(begin, begin + count)
            torch.mm(grad_pre[rows], gate_up[expert], out=grad_x[rows])
            torch.mm(grad_pre[rows].t(), x[rows], out=grad_gate_up[expert])
            begin += count
        return grad_x, grad_gate_up, grad_down, None


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in the half-split layout: x [B, heads, T, D], cos and sin [T, D/2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden_size, c.num_attention_heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.num_attention_heads * c.head_dim, c.hidden_size, bias=False)
        self.q_norm = RMSNorm(c.head_dim, c.rms_norm_eps)
        self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        c, (batch, length, _) = self.c, x.shape
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)).to(x.dtype)
        qkv = F.linear(x, weight).view(batch, length, -1, c.head_dim)
        q, k, v = qkv.split((c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads), dim=2)
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin)
        repeat = c.num_attention_heads // c.num_key_value_heads
        k = k.repeat_interleave(repeat, dim=1)
        v = v.transpose(1, 2).repeat_interleave(repeat, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.linear(y.transpose(1, 2).reshape(batch, length, -1), self.o_proj.weight.to(x.dtype))


class SparseMoe(nn.Module):
    """Top-k router with renormalised weights and the experts. Returns the output and the balancing loss."""

    def __init__(self, c: ModelConfig):
        super().__init__()
        self.c = c
        self.gate = nn.Parameter(torch.empty(c.num_experts, c.hidden_size))
        self.gate_up_proj = nn.Parameter(torch.empty(c.num_experts, 2 * c.moe_intermediate_size, c.hidden_size))
        self.down_proj = nn.Parameter(torch.empty(c.num_experts, c.hidden_size, c.moe_intermediate_size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c, flat = self.c, x.reshape(-1, x.shape[-1])
        probs = torch.softmax(F.linear(flat, self.gate.to(x.dtype)).float(), dim=-1)
        weights, ids = torch.topk(probs, c.num_experts_per_tok, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        order = torch.argsort(ids.flatten(), stable=True)
        counts = torch.bincount(ids.flatten(), minlength=c.num_experts)
        token = order // c.num_experts_per_tok
        rows = ExpertsFunction.apply(
            flat[token], self.gate_up_proj.to(x.dtype), self.down_proj.to(x.dtype), counts.tolist()
        )
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.shape[0])
        rows = rows[inverse].view(*weights.shape, -1)
        out = torch.einsum("tk,tkh->th", weights.to(x.dtype), rows)
        share = counts.float() / counts.sum()
        balance = c.num_experts * (share * probs.mean(0)).sum()
        return out.view_as(x), balance


class Layer(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = SparseMoe(c)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y, balance = self.mlp(self.post_attention_layernorm(x))
        return x + y, balance


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits [N, V] in float32, averaged over the targets [N] that are not negative."""
    valid = targets >= 0
    chosen = logits.gather(1, targets.clamp(min=0)[:, None]).squeeze(1).float()
    losses = torch.logsumexp(logits.float(), dim=-1) - chosen
    return (losses * valid).sum() / valid.sum()


class DemoModel(nn.Module):
    """Decoder with tied embeddings; forward() gives the mean cross entropy and the mean balancing loss."""

    def __init__(self, c: ModelConfig, seed: int = 0):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Parameter(torch.empty(c.vocab_size, c.hidden_size))
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim < 2:
                continue
            std = p.shape[-1] ** -0.5 * (0.5 if name != "embed_tokens" else 0.5)
            if "o_proj" in name or "down_proj" in name:
                std *= (2 * c.num_hidden_layers) ** -0.5
            with torch.no_grad():
                p.copy_(torch.randn(p.shape, generator=generator) * std)
        half = c.head_dim // 2
        freq = c.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(c.max_position_embeddings, dtype=torch.float64)[:, None] * freq
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def hidden(self, ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """ids [B, T] -> final hidden states [B, T, H] and the mean balancing loss over layers."""
        cos, sin = self.cos[: ids.shape[1]].to(dtype), self.sin[: ids.shape[1]].to(dtype)
        x = F.embedding(ids, self.embed_tokens).to(dtype)
        balances = []
        for layer in self.layers:
            x, balance = layer(x, cos, sin)
            balances.append(balance)
        return self.norm(x), torch.stack(balances).mean()

    def forward(self, ids: Tensor, targets: Tensor, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
        x, balance = self.hidden(ids, dtype)
        logits = F.linear(x, self.embed_tokens.to(dtype))
        return mean_loss(logits.flatten(0, 1), targets.flatten()), balance
