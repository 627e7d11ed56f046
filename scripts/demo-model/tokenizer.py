"""The demo model's tokenizer: byte-level BPE with single digits, trained on the generated text.

train.py builds it once and encodes with it; export.py writes its files into the model folder.
"""

from __future__ import annotations

import random

from corpus import SHARES, document
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [END_OF_TEXT, IM_START, IM_END]
# The split that Qwen's tokenizers use: contractions, words, single digits, punctuation, line ends, spaces.
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def sample_text(seed: int, documents: int):
    """Documents of every domain in the proportion of training, for the merges to be learned from."""
    rng = random.Random(f"tokenizer {seed}")
    for _ in range(documents):
        text = document(rng.choices(list(SHARES), list(SHARES.values()))[0], rng)
        for special in SPECIAL:
            text = text.replace(special, "\n")
        yield text


def train_tokenizer(vocab_size: int, seed: int, documents: int = 20000) -> Tokenizer:
    """Special tokens come first (ids 0, 1, 2), then bytes, then merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_text(seed, documents), trainer)
    return tokenizer
