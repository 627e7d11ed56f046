"""Muon for matrices (Jordan et al. 2024) with AdamW for the rest: the demo model's optimizer.

Muon replaces a matrix's momentum by its nearest orthogonal matrix; each expert's gate, up and down matrix counts as a
matrix of its own. All matrices of one shape go through the iteration as one batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def orthogonalize(batch: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration in bfloat16: batch [N, R, C] with R <= C -> approximately orthogonal rows."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = (batch / (batch.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.float()


class Muon:
    """Updates every matrix parameter except embeddings and router; the scale matches AdamW's update size."""

    def __init__(self, named: dict[str, nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.05):
        self.parameters, self.momentum, self.weight_decay = list(named.values()), momentum, weight_decay
        self.fused = ["gate_up_proj" in name for name in named]
        self.buffers = [torch.zeros_like(p) for p in self.parameters]

    @staticmethod
    def matrices(p: Tensor, fused: bool) -> Tensor:
        """[N, R, C] with R <= C; a fused gate_up [E, 2I, H] becomes 2E matrices [I, H]."""
        if fused:
            p = p.view(p.shape[0] * 2, p.shape[1] // 2, p.shape[2])
        p = p if p.ndim == 3 else p[None]
        return p.transpose(1, 2) if p.shape[1] > p.shape[2] else p

    @torch.no_grad()
    def step(self, lr: float) -> None:
        groups: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for p, buffer, fused in zip(self.parameters, self.buffers, self.fused):
            buffer.mul_(self.momentum).add_(p.grad)
            update = self.matrices(p.grad.add(buffer, alpha=self.momentum), fused)
            groups.setdefault(tuple(update.shape[1:]), []).append((self.matrices(p, fused), update))
        for shape, pairs in groups.items():
            updates = orthogonalize(torch.cat([u for _, u in pairs]))
            scale = 0.2 * max(shape) ** 0.5
            for (p, _), update in zip(pairs, updates.split([u.shape[0] for _, u in pairs])):
                p.mul_(1 - lr * self.weight_decay).add_(update, alpha=-lr * scale)

    def state_dict(self) -> dict:
        return {"buffers": self.buffers}

    def load_state_dict(self, state: dict) -> None:
        for mine, saved in zip(self.buffers, state["buffers"]):
            mine.copy_(saved)
