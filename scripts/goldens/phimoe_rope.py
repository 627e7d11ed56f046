"""Repairs PhimoeRotaryEmbedding of transformers 5.18 before goldens are made. Called by make_goldens.py.

transformers 4 passed the sequence length to the LongRoPE initialiser, which then took the long factors beyond the
original length. The 5.18 forward pass calls the initialiser without it and so always takes the short factors, while it
does switch to long_mscale. The published configs and the LongRoPE paper (Ding et al. 2024, arXiv 2402.13753) mean the
former; nothing else is changed here.
"""

from __future__ import annotations

import functools

import torch
from transformers.models.phimoe.modeling_phimoe import PhimoeRotaryEmbedding


def restore_long_factors() -> None:
    """Makes the rotary embedding hand its sequence length to the initialiser."""
    original = PhimoeRotaryEmbedding.forward

    @functools.wraps(original)
    def forward(self, x, position_ids=None):
        plain = self.rope_init_fn
        if self.rope_type == "longrope":
            self.rope_init_fn = functools.partial(plain, seq_len=int(torch.max(position_ids)) + 1)
        try:
            return original(self, x, position_ids)
        finally:
            self.rope_init_fn = plain

    PhimoeRotaryEmbedding.forward = forward
