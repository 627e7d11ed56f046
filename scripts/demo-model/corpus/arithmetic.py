"""Sums with worked answers: column addition and subtraction, products by parts, division, word problems.

chat.py uses `question` for a question with its answer; `make` writes a page of one to four of them.
"""

from __future__ import annotations

import random

from . import words

ITEMS = [
    "apples",
    "marbles",
    "stamps",
    "cookies",
    "pencils",
    "shells",
    "coins",
    "books",
    "eggs",
    "flowers",
    "tickets",
    "stones",
]


def add_steps(a: int, b: int) -> str:
    """Column addition from the right, with carries."""
    steps, carry, x, y = [], 0, a, b
    names = ["Ones", "Tens", "Hundreds", "Thousands"]
    for place in range(max(len(str(a)), len(str(b)))):
        p, q = x % 10, y % 10
        total = p + q + carry
        extra = f" + {carry}" if carry else ""
        steps.append(
            f"{names[place]}: {p} + {q}{extra} = {total}" + (f", carry {total // 10}." if total > 9 else ".")
        )
        carry, x, y = total // 10, x // 10, y // 10
    return " ".join(steps) + f" So {a} + {b} = {a + b}."


def subtract_steps(a: int, b: int) -> str:
    """a - b by taking away tens first, then ones; a >= b."""
    tens, ones = b // 10 * 10, b % 10
    if not tens or not ones:
        return f"{a} - {b} = {a - b}."
    return f"First take away {tens}: {a} - {tens} = {a - tens}. Then take away {ones}: {a - tens} - {ones} = {a - b}. So {a} - {b} = {a - b}."


def multiply_steps(a: int, b: int) -> str:
    """a x b with one-digit a, splitting b into tens and ones."""
    if b < 11 or b % 10 == 0:
        return f"{a} x {b} = {a * b}."
    tens, ones = b // 10 * 10, b % 10
    return f"{a} x {tens} = {a * tens}. {a} x {ones} = {a * ones}. {a * tens} + {a * ones} = {a * b}. So {a} x {b} = {a * b}."


def divide_steps(a: int, b: int) -> str:
    quotient, rest = divmod(a, b)
    if rest:
        return f"{b} x {quotient} = {b * quotient}. {a} - {b * quotient} = {rest}. So {a} / {b} = {quotient} remainder {rest}."
    return f"{b} x {quotient} = {a}. So {a} / {b} = {quotient}."


def operands(rng: random.Random, op: str) -> tuple[int, int]:
    if op == "+":
        top = rng.choice((20, 99, 99, 500))
        return rng.randint(1, top), rng.randint(1, top)
    if op == "-":
        a = rng.randint(2, rng.choice((20, 99, 99)))
        return a, rng.randint(1, a)
    if op == "x":
        return rng.randint(2, 9), rng.randint(2, rng.choice((10, 10, 40)))
    b = rng.randint(2, 9)
    return rng.randint(b, b * 10 + 9), b


STEPS = {"+": add_steps, "-": subtract_steps, "x": multiply_steps, "/": divide_steps}


def word_problem(rng: random.Random) -> tuple[str, str]:
    name, other = rng.sample(words.GIRLS + words.BOYS, 2)
    item, kind = rng.choice(ITEMS), rng.randrange(4)
    if kind == 0:
        a, b = operands(rng, "+")
        return (
            f"{name} has {a} {item}. {other} gives {name} {b} more. How many {item} does {name} have now?",
            f"{add_steps(a, b)} {name} has {a + b} {item}.",
        )
    if kind == 1:
        a, b = operands(rng, "-")
        return (
            f"{name} has {a} {item} and gives {b} of them to {other}. How many {item} are left?",
            f"{subtract_steps(a, b)} {a - b} {item} are left.",
        )
    if kind == 2:
        a, b = operands(rng, "x")
        return (
            f"There are {a} boxes with {b} {item} in each. How many {item} are there?",
            f"{multiply_steps(a, b)} There are {a * b} {item}.",
        )
    b, each = rng.randint(2, 9), rng.randint(2, 9)
    return (
        f"{name} shares {b * each} {item} between {b} friends. How many {item} does each friend get?",
        f"{divide_steps(b * each, b)} Each friend gets {each} {item}.",
    )


def question(rng: random.Random) -> tuple[str, str]:
    """A question and its worked answer."""
    if rng.random() < 0.35:
        return word_problem(rng)
    op = rng.choice("++-x/")
    a, b = operands(rng, op)
    if op == "/":
        b = max(b, 2)
    return f"What is {a} {op} {b}?", STEPS[op](a, b)


def make(rng: random.Random) -> str:
    pairs = [question(rng) for _ in range(rng.randint(1, 4))]
    return "\n\n".join(f"Question: {q}\nAnswer: {a}" for q, a in pairs)
