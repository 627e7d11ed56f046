"""The demo model's training text: seeded grammars for five domains, and chats built from them.

`document(domain, rng)` makes one document. train.py and evaluate.py mix the domains by SHARES. Besides the plots in
arcs.txt nothing is read, so the same seed always gives the same text.
"""

from __future__ import annotations

import random

from . import arithmetic, chat, programs, recipes, records, stories

MAKERS = {
    "stories": stories.make,
    "arithmetic": arithmetic.make,
    "recipes": recipes.make,
    "json": records.make,
    "programs": programs.make,
    "chat": chat.make,
}

# Share of each domain in the number of training tokens.
SHARES = {"stories": 0.52, "arithmetic": 0.09, "recipes": 0.09, "json": 0.08, "programs": 0.08, "chat": 0.14}


def document(domain: str, rng: random.Random) -> str:
    """One document of the domain, without the end-of-text token."""
    return MAKERS[domain](rng)
