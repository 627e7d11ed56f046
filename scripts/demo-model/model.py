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
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 48
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
    """SwiGLU experts: x [T, H], ids [T, K], gate_up [E, 2I, H], down [E, H, I] -> one row per choice [T, K, H].

    Written by hand so that each matmul works on a contiguous run of rows sorted by expert and writes in place, with
    no autograd node per expert and no scatter-add in the backward pass. Runs are padded with zero rows to a multiple of
    RUN: the CPU library generates code for each new matrix shape, which would take longer than the product itself.
    """

    RUN = 128

    @staticmethod
    def forward(ctx, x: Tensor, ids: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        order = torch.argsort(ids.flatten(), stable=True)
        counts = torch.bincount(ids.flatten(), minlength=gate_up.shape[0])
        padded = (counts + ExpertsFunction.RUN - 1) // ExpertsFunction.RUN * ExpertsFunction.RUN
        shift = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
        place = torch.arange(order.shape[0]) + torch.repeat_interleave(shift, counts)
        ends = padded.cumsum(0).tolist()
        runs = [slice(begin, end) for begin, end in zip([0, *ends], ends)]
        where = torch.empty_like(order)
        where[order] = place
        rows = x.new_zeros(ends[-1], x.shape[1])
        rows.index_copy_(0, place, x.index_select(0, order // ids.shape[1]))
        pre, out = x.new_empty(ends[-1], gate_up.shape[1]), torch.empty_like(rows)
        for expert, run in enumerate(runs):
            torch.mm(rows[run], gate_up[expert].t(), out=pre[run])
        hidden = swiglu(pre)
        for expert, run in enumerate(runs):
            torch.mm(hidden[run], down[expert].t(), out=out[run])
        ctx.save_for_backward(rows, gate_up, down, pre, where)
        ctx.runs = runs
        return out.index_select(0, where).view(*ids.shape, -1)

    @staticmethod
    def backward(ctx, grad: Tensor):
        rows, gate_up, down, pre, where = ctx.saved_tensors
        grad_out = torch.zeros_like(rows).index_copy_(0, where, grad.flatten(0, 1))
        hidden = swiglu(pre)
        grad_hidden, grad_down = torch.empty_like(hidden), torch.empty_like(down)
        for expert, run in enumerate(ctx.runs):
            torch.mm(grad_out[run], down[expert], out=grad_hidden[run])
            torch.mm(grad_out[run].t(), hidden[run], out=grad_down[expert])
        grad_pre = swiglu_backward(pre, grad_hidden)
        grad_rows, grad_gate_up = torch.empty_like(rows), torch.empty_like(gate_up)
        for expert, run in enumerate(ctx.runs):
            torch.mm(grad_pre[run], gate_up[expert], out=grad_rows[run])
            torch.mm(grad_pre[run].t(), rows[run], out=grad_gate_up[expert])
        grad_x = grad_rows.index_select(0, where).view(*grad.shape).sum(1)
        return grad_x, None, grad_gate_up, grad_down


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
    """Weights of a layer's router and experts."""

    def __init__(self, c: ModelConfig):
        super().__init__()
        self.gate = nn.Parameter(torch.empty(c.num_experts, c.hidden_size))
        self.gate_up_proj = nn.Parameter(
            torch.empty(c.num_experts, 2 * c.moe_intermediate_size, c.hidden_size)
        )
        self.down_proj = nn.Parameter(torch.empty(c.num_experts, c.hidden_size, c.moe_intermediate_size))


class Layer(nn.Module):
    """One decoder layer in three parts, so that the parts around the experts can be compiled."""

    def __init__(self, c: ModelConfig):
        super().__init__()
        self.c = c
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = SparseMoe(c)

    def route(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Attention and router: x [B, T, H] -> residual [BT, H], normed [BT, H], probabilities, top-k ids, weights."""
        x = (x + self.self_attn(self.input_layernorm(x), cos, sin)).flatten(0, 1)
        y = self.post_attention_layernorm(x)
        probs = torch.softmax(F.linear(y, self.mlp.gate.to(y.dtype)).float(), dim=-1)
        weights, ids = torch.topk(probs, self.c.num_experts_per_tok, dim=-1)
        return x, y, probs, ids, weights / weights.sum(-1, keepdim=True)

    def combine(
        self, x: Tensor, rows: Tensor, weights: Tensor, probs: Tensor, ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighted sum of the experts' rows [BT, K, H] and the balancing loss (1 when the load is even)."""
        experts = torch.arange(self.c.num_experts)
        share = (ids[..., None] == experts).float().mean((0, 1))
        balance = self.c.num_experts * (share * probs.mean(0)).sum()
        return x + (rows * weights.to(rows.dtype)[..., None]).sum(1), balance

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        flat, y, probs, ids, weights = self.route(x, cos, sin)
        rows = ExpertsFunction.apply(
            y, ids, self.mlp.gate_up_proj.to(y.dtype), self.mlp.down_proj.to(y.dtype)
        )
        out, balance = self.combine(flat, rows, weights, probs, ids)
        return out.view_as(x), balance


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
            std = 0.5 * p.shape[-1] ** -0.5
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

    def forward(
        self, ids: Tensor, targets: Tensor, dtype: torch.dtype = torch.bfloat16
    ) -> tuple[Tensor, Tensor]:
        x, balance = self.hidden(ids, dtype)
        logits = F.linear(x, self.embed_tokens.to(dtype))
        return mean_loss(logits.flatten(0, 1), targets.flatten()), balance
