"""Chats in the form of the model's chat template: requests for stories, sums, recipes, records and programs."""

from __future__ import annotations

import json
import random

from . import arithmetic, programs, recipes, records, stories
from .cast import article

START, END = "<|im_start|>", "<|im_end|>"
GREETINGS = ["Hello!", "Hi!", "Hello", "Hi there", "Good morning!", "Hey"]
ABOUT = ["Who are you?", "What are you?", "What can you do?", "How can you help me?", "What is your name?"]
REPLIES = ["I am a small model that tells stories.", "I am a very small language model."]
SKILLS = "I can tell a story, work out a sum, write a recipe, a JSON record or a small program."
THANKS = [
    ("Thank you!", "You are welcome!"),
    ("Thanks", "You are welcome!"),
    ("That was nice.", "I am glad that you liked it."),
    ("Bye!", "Goodbye!"),
    ("Good night", "Good night and sweet dreams!"),
]


def turn(role: str, content: str) -> str:
    return f"{START}{role}\n{content}{END}\n"


def story_request(rng: random.Random) -> tuple[str, str]:
    world = rng.choice(stories.WORLDS)
    hero = world.hero
    who = rng.choice(
        (
            article(hero.kind),
            f"{article(hero.kind)} called {hero.name}",
            f"a little {hero.kind}",
            f"{article(hero.kind)} named {hero.name}",
        )
    )
    form = rng.random()
    if form < 0.15:
        return rng.choice(
            ("Tell me a story.", "Tell me a story", "Can you tell me a story?", "I want to hear a story.")
        ), stories.tell(rng, world)
    ask = rng.choice(
        (
            "Tell me a story about {}.",
            "Tell me a story about {}",
            "Write a short story about {}.",
            "Please tell me a story about {}.",
            "Can you tell me a story about {}?",
            "A story about {}, please.",
        )
    )
    if form < 0.4:
        topics = {
            "quest": "who goes on a journey",
            "lost": "who lost something",
            "fear": "who is afraid",
            "party": "and a birthday",
            "build": "who builds something",
            "seed": "and a plant",
            "monster": "and a monster",
            "friend": "who finds a friend",
            "home": "who gets lost",
        }
        if world.arc in topics:
            return ask.format(f"{who} {topics[world.arc]}"), stories.tell(rng, world)
    return ask.format(who), stories.tell(rng, world)


def recipe_request(rng: random.Random) -> tuple[str, str]:
    title, body = recipes.dish(rng)
    plain = title.lower()
    return rng.choice(
        (f"How do I make {plain}?", f"Give me a recipe for {plain}.", f"I want to cook {plain}.")
    ), f"{title}\n{body}"


def record_request(rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(list(records.KINDS))
    ask = rng.choice(
        ("Write a JSON record for {}.", "Give me an example of {} in JSON.", "Show me {} as JSON.")
    )
    return ask.format(article(kind)), json.dumps(records.KINDS[kind](rng), indent=2)


def program_request(rng: random.Random) -> tuple[str, str]:
    request, source = programs.program(rng)
    return rng.choice((f"Write a Python program to {request}.", f"Show me Python code: {request}.")), source


def exchange(rng: random.Random) -> tuple[str, str]:
    """One request and its reply."""
    form = rng.random()
    if form < 0.55:
        return story_request(rng)
    if form < 0.7:
        return arithmetic.question(rng)
    if form < 0.78:
        return recipe_request(rng)
    if form < 0.84:
        return record_request(rng)
    if form < 0.9:
        return program_request(rng)
    if form < 0.95:
        return rng.choice(GREETINGS), f"Hello! {rng.choice(REPLIES)} {SKILLS}"
    return rng.choice(ABOUT), f"{rng.choice(REPLIES)} {SKILLS}"


def make(rng: random.Random) -> str:
    turns = [exchange(rng) for _ in range(1 if rng.random() < 0.85 else 2)]
    if rng.random() < 0.1:
        turns.append(rng.choice(THANKS))
    return "".join(turn("user", q) + turn("assistant", a) for q, a in turns).rstrip("\n")
