"""Recipes: a title, servings, an ingredient list, and numbered steps that use exactly those ingredients."""

from __future__ import annotations

import random

VEGETABLES = [
    "carrots",
    "potatoes",
    "onions",
    "tomatoes",
    "leeks",
    "mushrooms",
    "peppers",
    "beans",
    "peas",
    "pumpkin",
    "spinach",
    "cabbage",
]
FRUITS = ["apples", "pears", "cherries", "plums", "berries", "lemons", "bananas", "peaches"]
HERBS = ["parsley", "basil", "thyme", "mint", "dill", "chives", "rosemary"]
GRAINS = ["rice", "pasta", "barley", "lentils", "noodles", "millet"]
CHEESES = ["goat cheese", "cheddar", "feta", "parmesan"]
NUTS = ["walnuts", "almonds", "hazelnuts"]
ADJECTIVES = [
    "Simple",
    "Grandmother's",
    "Quick",
    "Summer",
    "Winter",
    "Sunday",
    "Creamy",
    "Spicy",
    "Country",
    "Golden",
]
SERVE = [
    "Serve hot.",
    "Serve at once.",
    "Serve with fresh bread.",
    "Let it rest for 5 minutes before serving.",
    "Enjoy!",
]


def one(plural: str) -> str:
    """Title form of an ingredient: 'cherries' -> 'Cherry'."""
    for ending, replacement in (("ies", "y"), ("oes", "o"), ("ches", "ch"), ("s", "")):
        if plural.endswith(ending) and plural not in ("lentils", "noodles"):
            return (plural[: -len(ending)] + replacement).capitalize()
    return plural.capitalize()


def quantity(rng: random.Random, item: str) -> str:
    if item in ("parsley", "basil", "thyme", "mint", "dill", "chives", "rosemary"):
        return f"1 handful of {item}"
    if (
        item in ("pumpkin", "spinach", "cabbage", "beans", "peas", "mushrooms", "berries", "cherries")
        or item in GRAINS + CHEESES + NUTS
    ):
        return f"{rng.randrange(100, 550, 50)} g {item}"
    return f"{rng.randint(2, 6)} {item}"


def soup(rng: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = rng.sample(VEGETABLES, 2)
    herb, minutes = rng.choice(HERBS), rng.randrange(15, 45, 5)
    ingredients = [
        quantity(rng, a),
        quantity(rng, b),
        "1 clove of garlic",
        "1 litre of water",
        "2 tablespoons of oil",
        quantity(rng, herb),
        "salt and pepper",
    ]
    steps = [
        rng.choice(
            (
                f"Wash the {a} and the {b} and cut them into small pieces.",
                f"Chop the {a}, the {b} and the garlic.",
            )
        ),
        rng.choice(("Heat the oil in a large pot.", "Warm the oil in a pot over medium heat.")),
        rng.choice(
            (
                f"Fry the {b} for 5 minutes, then add the {a}.",
                f"Add the {a} and the {b} and stir for {rng.randint(3, 8)} minutes.",
            )
        ),
        f"Pour in the water and cook for {minutes} minutes.",
        rng.choice(
            (
                f"Season with salt and pepper and stir in the {herb}.",
                f"Sprinkle with {herb} and add salt and pepper.",
            )
        ),
    ]
    return f"{rng.choice(ADJECTIVES)} {one(a)} Soup", ingredients, steps


def bake(rng: random.Random) -> tuple[str, list[str], list[str]]:
    fruit, nut = rng.choice(FRUITS), rng.choice(NUTS)
    kind, heat, minutes = (
        rng.choice(("Cake", "Pie", "Muffins", "Crumble")),
        rng.randrange(160, 220, 10),
        rng.randrange(20, 60, 5),
    )
    spice = rng.choice(("cinnamon", "vanilla", "nutmeg", "ginger"))
    ingredients = [
        f"{rng.randrange(200, 450, 50)} g flour",
        f"{rng.randrange(80, 200, 20)} g sugar",
        f"{rng.randrange(80, 200, 10)} g butter",
        f"{rng.randint(1, 4)} eggs",
        quantity(rng, fruit),
        f"{rng.randrange(50, 150, 25)} g {nut}",
        f"1 teaspoon of {spice}",
    ]
    steps = [
        rng.choice(
            (f"Heat the oven to {heat} degrees.", f"Preheat the oven to {heat} degrees and butter a tin.")
        ),
        rng.choice(
            ("Mix the butter and the sugar until smooth.", "Beat the butter with the sugar and the eggs.")
        ),
        rng.choice(
            (f"Add the flour and the {spice} and stir well.", f"Stir in the flour, then the {spice}.")
        ),
        rng.choice(
            (
                f"Wash the {fruit} and cut them into pieces.",
                f"Prepare the {fruit} and fold them into the dough.",
            )
        ),
        rng.choice((f"Sprinkle with {nut}.", f"Chop the {nut} and put them on top.")),
        f"Bake for {minutes} minutes.",
    ]
    return f"{rng.choice(ADJECTIVES)} {one(fruit)} {kind}", ingredients, steps


def pan(rng: random.Random) -> tuple[str, list[str], list[str]]:
    grain, vegetable, cheese, herb = (
        rng.choice(GRAINS),
        rng.choice(VEGETABLES),
        rng.choice(CHEESES),
        rng.choice(HERBS),
    )
    ingredients = [
        quantity(rng, grain),
        quantity(rng, vegetable),
        f"{rng.randrange(50, 200, 25)} g {cheese}",
        "1 onion",
        "2 tablespoons of butter",
        quantity(rng, herb),
        "salt",
    ]
    steps = [
        f"Cook the {grain} in salted water for {rng.randrange(8, 25)} minutes.",
        rng.choice(
            (
                f"Cut the onion and the {vegetable} into thin slices.",
                f"Peel the onion and chop it together with the {vegetable}.",
            )
        ),
        rng.choice(
            (
                f"Melt the butter in a pan and fry the {vegetable} until soft.",
                f"Fry everything in butter for {rng.randint(5, 12)} minutes.",
            )
        ),
        rng.choice((f"Mix the {grain} with the vegetables.", f"Drain the {grain} and add it to the pan.")),
        rng.choice(
            (f"Top with {cheese} and {herb}.", f"Crumble the {cheese} over it and garnish with {herb}.")
        ),
    ]
    return f"{grain.capitalize()} with {vegetable.capitalize()} and {cheese.title()}", ingredients, steps


def salad(rng: random.Random) -> tuple[str, list[str], list[str]]:
    (a, b), fruit, nut = rng.sample(VEGETABLES, 2), rng.choice(FRUITS), rng.choice(NUTS)
    sauce = rng.choice(("vinegar", "lemon juice", "mustard"))
    ingredients = [
        quantity(rng, a),
        quantity(rng, b),
        quantity(rng, fruit),
        f"{rng.randrange(30, 120, 10)} g {nut}",
        "3 tablespoons of oil",
        f"1 tablespoon of {sauce}",
        "a pinch of salt",
    ]
    steps = [
        f"Slice the {a} and the {b}.",
        rng.choice((f"Cut the {fruit} into cubes.", f"Wash the {fruit} and halve them.")),
        rng.choice((f"Toast the {nut} in a dry pan.", f"Chop the {nut} roughly.")),
        f"Whisk the oil, the {sauce} and the salt.",
        rng.choice(("Mix everything in a bowl.", "Toss it all together.")),
    ]
    return f"{one(a)} and {one(fruit)} Salad", ingredients, steps


def dish(rng: random.Random) -> tuple[str, str]:
    """The dish's name and its recipe without the title."""
    title, ingredients, steps = rng.choice((soup, bake, pan, salad))(rng)
    steps.append(rng.choice(SERVE))
    head = f"Serves {rng.randint(2, 8)}. Ready in {rng.randrange(20, 95, 5)} minutes."
    listed = "\n".join(f"- {i}" for i in ingredients)
    numbered = "\n".join(f"{n}. {s}" for n, s in enumerate(steps, 1))
    return title, f"{head}\n\nIngredients:\n{listed}\n\nSteps:\n{numbered}"


def make(rng: random.Random) -> str:
    title, body = dish(rng)
    return f"Recipe: {title}\n{body}"
