"""Short children's stories: a cast, a place, a plot arc told beat by beat, and an ending.

chat.py asks for stories of a chosen world through `tell`; everybody else calls `make`.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import NamedTuple

from . import words
from .cast import Character, article, character, slots


class Beat(NamedTuple):
    """One step of a plot: the ways to tell it, and the chance that it is told at all."""

    options: list[str]
    chance: float


def read_arcs(path: Path) -> dict[str, list[Beat]]:
    """Reads arcs.txt; its head explains the form."""
    arcs: dict[str, list[Beat]] = {}
    beats: list[Beat] = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines, chance = [line for line in block.splitlines() if line and not line.startswith("#")], 1.0
        if lines and lines[0].startswith("["):
            beats = arcs.setdefault(lines.pop(0)[1:-1], [])
        if lines and lines[0].startswith("? "):
            chance = float(lines.pop(0)[2:])
        if lines:
            beats.append(Beat(lines, chance))
    return arcs


ARCS = read_arcs(Path(__file__).with_name("arcs.txt"))

OPENINGS_ANIMAL = [
    "there was a little {kind} called {N}.",
    "there lived {atrait} {kind} named {N}.",
    "there was {akind} whose name was {N}.",
    "{atrait} young {kind} called {N} lived {place_in}.",
    "there lived {akind} named {N} {place_in}.",
    "a little {kind} named {N} lived in {home}.",
]
OPENINGS_CHILD = [
    "there was a little {kind} called {N}.",
    "there lived {atrait} {kind} named {N}.",
    "there was a {kind} whose name was {N}.",
    "{atrait} {kind} called {N} lived {place_in}.",
    "there was {atrait} {kind} named {N}, who lived in {home}.",
    "a {kind} named {N} lived with {his} {adult} in {home}.",
]
STARTS = [
    "Once upon a time, ",
    "Once upon a time, ",
    "Once upon a time ",
    "Long ago, ",
    "Many years ago, ",
    "Once, ",
    "In a land far away, ",
    "",
]
SCENES = [
    "{He} lived {place_in}, where one could see {see1} and {see2}.",
    "{N} lived {place_in} with {see1} and {see2}.",
    "{His} home was {home} {place_in}.",
    "All around there were {see1} and {see2}.",
    "Everyone {place_in} knew {him}.",
    "It was a good place to live, with {see1} and {see2}.",
]
CHARACTERS = [
    "{N} was very {trait}, and also a little {trait2}.",
    "{He} was {atrait} {kind}, and everybody liked {him}.",
    "{He} liked {food} and long walks.",
    "Every morning {he} ate {food} and looked out of the window.",
    "{N} loved to play outside in every kind of weather.",
    "{He} was small, but {he} had a big heart.",
    "Most of all {he} liked to sit by the window and dream.",
    "{His} best friend was {fN}, {afkind}.",
]
DETAILS = [
    "On that day {weather}.",
    "{weather_cap}.",
    "It was a {day} day.",
    "It was early, and {weather}.",
]
MORALS = [
    "And so {N} learned that {lesson}.",
    "That day, {N} learned that {lesson}.",
    "Now {he} knew that {lesson}.",
    "And {N} never forgot that {lesson}.",
    '"You see," said {fN}, "{lesson}."',
    "Since then {N} knows that {lesson}.",
    '"I have learned something," said {N}. "{lesson_cap}."',
]
CLOSINGS = [
    "{sky}, and everything was well.",
    "{sky}, and {N} fell asleep with a smile.",
    "They lived happily ever after.",
    "The end.",
    "And they all lived happily ever after.",
    "{sky}, and {N} and {fN} went home.",
    "That night, {N} slept very well.",
    "And if you go there today, you may still see them together.",
    "{sky}. It had been a good day.",
]


def scene(rng: random.Random, arc: str, hero: Character, friend: Character) -> dict[str, str]:
    """Every slot that the arcs and frames use, drawn once so that the story stays consistent."""
    place, preposition, (see1, see2) = rng.choice(words.PLACES)
    place = f"{rng.choice(words.PLACE_ADJECTIVES)} {place}"
    colour, fear, project = rng.choice(words.COLOURS), rng.choice(words.FEARS), rng.choice(words.PROJECTS)
    searched = rng.sample(words.SEARCHED, 2)
    trait, trait2 = rng.sample(words.TRAITS, 2)
    plant, seedling = rng.choice(words.PLANTS)
    guide, lesson, weather = (
        rng.choice(words.GUIDES),
        rng.choice(words.LESSONS[arc]),
        rng.choice(words.WEATHER),
    )
    noun = guide.split(" ", 1)[1]
    return {
        **slots("", hero),
        **slots("f", friend),
        "afkind": article(friend.kind),
        "fT": f"{friend.name} the {friend.kind}"
        if friend.animal
        else f"{friend.name}, the {friend.kind} next door,",
        "place_in": f"{preposition} {{the}} {place}",
        "place_first": f"{preposition} {article(place)}",
        "see1": see1,
        "see2": see2,
        "home": rng.choice(words.ANIMAL_HOMES if hero.animal else words.HOMES),
        "adult": rng.choice(words.ADULTS),
        "trait": trait,
        "trait2": trait2,
        "atrait": "an honest" if trait == "honest" else article(trait),
        "colour": colour,
        "acolour": article(colour),
        "thing": rng.choice(words.TREASURES),
        "hiding": rng.choice(words.HIDING),
        "searched": searched[0],
        "searched2": searched[1],
        "food": rng.choice(words.FOODS),
        "fear": fear[0],
        "fearwhen": fear[1],
        "project": project[0],
        "materials": project[1],
        "fail": project[2],
        "success": project[3],
        "plant": plant,
        "aplant": article(plant),
        "aplant_cap": article(plant).capitalize(),
        "seedling": seedling,
        "quest": rng.choice(words.QUESTS),
        "guide": guide,
        "guide_short": "the " + noun.split(" with ")[0],
        "small": rng.choice(words.SMALL_ANIMALS),
        "trap": rng.choice(words.TRAPS),
        "sound": rng.choice(words.SOUNDS),
        "monster": rng.choice(words.MONSTERS),
        "contest": rng.choice(words.CONTESTS),
        "broken": rng.choice(words.BROKEN),
        "culprit": rng.choice(words.CULPRITS),
        "gift": rng.choice(words.GIFTS),
        "weather": weather,
        "weather_cap": weather[0].upper() + weather[1:],
        "time": rng.choice(("morning", "afternoon", "evening", "day")),
        "day": rng.choice(("cold", "warm", "bright", "grey", "windy")),
        "sky": rng.choice(words.SKY_END),
        "lesson": lesson,
        "lesson_cap": lesson[0].upper() + lesson[1:],
    }


def fill(template: str, values: dict[str, str], introduced: list[bool]) -> str:
    """Fills a template. The place takes 'a' when it is named first and 'the' afterwards."""
    if "{place_in}" in template:
        place = values["place_in"].replace("{the}", "the") if introduced[0] else values["place_first"]
        introduced[0] = True
        values = {**values, "place_in": place}
    return template.format_map(values)


class World(NamedTuple):
    """The people, the place and the things of one plot: `values` fills the slots of its sentences."""

    arc: str
    hero: Character
    values: dict[str, str]


def worlds() -> list[World]:
    """Each arc is told in WORLDS_PER_ARC worlds, each with its own hero and friend.

    A model of this size does not learn to carry a freely drawn name through a story; it does learn who lives in
    which story.
    """
    found: list[World] = []
    taken: set[str] = set()
    for arc in ARCS:
        for number in range(WORLDS_PER_ARC):
            rng = random.Random(f"world {arc} {number}")
            hero = character(rng, ("girl", "animal", "boy")[number % 3])
            while hero.name in taken:
                hero = character(rng, ("girl", "animal", "boy")[number % 3])
            friend = character(rng, "animal" if not hero.animal else rng.choice(("girl", "boy")))
            while friend.name in taken or friend.name == hero.name:
                friend = character(rng, "animal" if not hero.animal else rng.choice(("girl", "boy")))
            taken |= {hero.name, friend.name}
            found.append(World(arc, hero, scene(rng, arc, hero, friend)))
    return found


def tell(rng: random.Random, world: World | None = None) -> str:
    """A story in the given world (drawn if absent); how it is told is drawn anew each time."""
    arc, hero, values = world or rng.choice(WORLDS)
    introduced = [False]
    start = rng.choice(STARTS)
    opening = fill(rng.choice(OPENINGS_ANIMAL if hero.animal else OPENINGS_CHILD), values, introduced)
    sentences = [start + opening if start else opening[0].upper() + opening[1:]]
    if rng.random() < 0.7:
        sentences.append(
            rng.choice([s for s in SCENES if "{home}" not in s or values["home"] not in opening])
        )
    if rng.random() < 0.6:
        sentences.append(rng.choice(CHARACTERS[: None if arc in ("lost", "share", "build", "party") else -1]))
    sentences.append("\n\n" if rng.random() < 0.5 else "")
    beats = ARCS[arc]
    breaks = rng.sample(range(2, len(beats)), 2)
    for index, beat in enumerate(beats):
        if beat.chance < 1 and rng.random() > beat.chance:
            continue
        sentences.append("\n\n" if index in breaks and rng.random() < 0.6 else "")
        sentences.append(rng.choice(beat.options))
        if index == 0 and rng.random() < 0.15:
            sentences.append(rng.choice(DETAILS))
    sentences.append("\n\n" if rng.random() < 0.4 else "")
    if rng.random() < 0.6:
        sentences.append(rng.choice(MORALS))
    sentences.append(rng.choice(CLOSINGS))
    text = " ".join(fill(s, values, introduced) for s in sentences if s)
    return re.sub(r",(?=[,.!?])", "", text.replace(" \n\n ", "\n\n")).strip()


WORLDS_PER_ARC = 2
WORLDS = worlds()


def make(rng: random.Random) -> str:
    """A story, sometimes under a title."""
    return tell(rng)
