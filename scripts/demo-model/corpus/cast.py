"""Characters for stories: names, kinds and pronouns, so that a story keeps them straight from start to end."""

from __future__ import annotations

import random
from dataclasses import dataclass

from . import words


@dataclass(frozen=True)
class Character:
    """A hero or friend. `kind` is girl, boy or an animal's name."""

    name: str
    kind: str
    he: str
    him: str
    his: str

    @property
    def animal(self) -> bool:
        return self.kind not in ("girl", "boy")


def character(rng: random.Random, kind: str | None = None, without: str = "") -> Character:
    """Draws a character, of the given kind if one is named, whose name is not `without`."""
    if kind is None:
        kind = rng.choice(("girl", "boy", "animal", "animal"))
    if kind == "animal":
        kind = rng.choice(words.ANIMALS)
    while True:
        female = kind == "girl" or (kind != "boy" and rng.random() < 0.5)
        pool = {"girl": words.GIRLS, "boy": words.BOYS}.get(kind, words.ANIMAL_NAMES)
        name = rng.choice(pool)
        if name != without:
            return Character(name, kind, *(("she", "her", "her") if female else ("he", "him", "his")))


def article(noun: str) -> str:
    """The noun with its indefinite article: 'an owl'."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def slots(prefix: str, c: Character) -> dict[str, str]:
    """Template slots for a character: N, he, him, his, He, His, kind, akind, each with the prefix before it."""
    return {
        f"{prefix}N": c.name,
        f"{prefix}he": c.he,
        f"{prefix}him": c.him,
        f"{prefix}his": c.his,
        f"{prefix}He": c.he.capitalize(),
        f"{prefix}His": c.his.capitalize(),
        f"{prefix}kind": c.kind,
        f"{prefix}akind": article(c.kind),
    }
