"""Small Python programs whose comments state results that were computed, so that the text is true."""

from __future__ import annotations

import random

NUMBERS = ["n", "x", "number", "value", "count"]
LISTS = ["numbers", "values", "items", "scores", "prices"]


def scalar(rng: random.Random) -> tuple[str, str, str]:
    """A function of one or two numbers: (request, name, source)."""
    v, w, k = rng.choice(NUMBERS), rng.choice("yabk"), rng.randint(2, 9)
    name, args, body, doc, run = rng.choice(
        [
            ("add", (v, w), f"return {v} + {w}", f"Return the sum of {v} and {w}.", lambda a, b: a + b),
            (
                "multiply",
                (v, w),
                f"return {v} * {w}",
                f"Return the product of {v} and {w}.",
                lambda a, b: a * b,
            ),
            (
                "difference",
                (v, w),
                f"return abs({v} - {w})",
                f"Return the distance between {v} and {w}.",
                lambda a, b: abs(a - b),
            ),
            (
                "largest",
                (v, w),
                f"if {v} > {w}:\n        return {v}\n    return {w}",
                f"Return the larger of {v} and {w}.",
                max,
            ),
            (
                "smallest",
                (v, w),
                f"if {v} < {w}:\n        return {v}\n    return {w}",
                f"Return the smaller of {v} and {w}.",
                min,
            ),
            ("square", (v,), f"return {v} * {v}", f"Return the square of {v}.", lambda a: a * a),
            ("is_even", (v,), f"return {v} % 2 == 0", f"Return True if {v} is even.", lambda a: a % 2 == 0),
            ("is_odd", (v,), f"return {v} % 2 == 1", f"Return True if {v} is odd.", lambda a: a % 2 == 1),
            (f"times_{k}", (v,), f"return {v} * {k}", f"Multiply {v} by {k}.", lambda a: a * k),
            (f"plus_{k}", (v,), f"return {v} + {k}", f"Add {k} to {v}.", lambda a: a + k),
            (
                f"divisible_by_{k}",
                (v,),
                f"return {v} % {k} == 0",
                f"Check whether {v} can be divided by {k}.",
                lambda a: a % k == 0,
            ),
        ]
    )
    doc_line = f'    """{doc}"""\n' if rng.random() < 0.7 else ""
    source = f"def {name}({', '.join(args)}):\n{doc_line}    {body}\n"
    for _ in range(rng.randint(1, 3)):
        given = [rng.randint(1, 20) for _ in args]
        source += f"\nprint({name}({', '.join(map(str, given))}))  # {run(*given)}"
    return doc[0].lower() + doc[1:-1], name, source


def loop(rng: random.Random) -> tuple[str, str, str]:
    """A function over a list: (request, name, source)."""
    v, xs, k = rng.choice(("x", "value", "item")), rng.choice(LISTS), rng.randint(2, 9)
    name, start, line, doc, run = rng.choice(
        [
            ("total", "0", f"result += {v}", f"Return the sum of all {xs}.", sum),
            (
                "count_even",
                "0",
                f"if {v} % 2 == 0:\n            result += 1",
                f"Count the even {xs}.",
                lambda a: sum(1 for i in a if i % 2 == 0),
            ),
            (
                f"count_above_{k}",
                "0",
                f"if {v} > {k}:\n            result += 1",
                f"Count the {xs} above {k}.",
                lambda a: sum(1 for i in a if i > k),
            ),
            (
                "doubled",
                "[]",
                f"result.append({v} * 2)",
                f"Return a list with all {xs} doubled.",
                lambda a: [i * 2 for i in a],
            ),
            (
                "squares",
                "[]",
                f"result.append({v} * {v})",
                f"Return the squares of all {xs}.",
                lambda a: [i * i for i in a],
            ),
            (
                f"keep_above_{k}",
                "[]",
                f"if {v} > {k}:\n            result.append({v})",
                f"Keep only the {xs} above {k}.",
                lambda a: [i for i in a if i > k],
            ),
            (
                "keep_odd",
                "[]",
                f"if {v} % 2 == 1:\n            result.append({v})",
                f"Keep only the odd {xs}.",
                lambda a: [i for i in a if i % 2 == 1],
            ),
        ]
    )
    doc_line = f'    """{doc}"""\n' if rng.random() < 0.7 else ""
    given = [rng.randint(1, 12) for _ in range(rng.randint(2, 5))]
    source = (
        f"def {name}({xs}):\n{doc_line}    result = {start}\n    for {v} in {xs}:\n        {line}\n    return result\n\n"
        f"{xs} = {given}\nprint({name}({xs}))  # {run(given)}"
    )
    return doc[0].lower() + doc[1:-1], name, source


def small_class(rng: random.Random) -> tuple[str, str, str]:
    """A class with a constructor and one method: (request, name, source)."""
    name, field, method = rng.choice(
        (
            ("Counter", "count", "increase"),
            ("Account", "balance", "deposit"),
            ("Jar", "cookies", "put"),
            ("Train", "speed", "accelerate"),
        )
    )
    start, steps = rng.randint(0, 20), [rng.randint(1, 9) for _ in range(rng.randint(1, 3))]
    calls = "\n".join(f"{name.lower()}.{method}({s})" for s in steps)
    source = (
        f"class {name}:\n    def __init__(self, {field}={start}):\n        self.{field} = {field}\n\n"
        f"    def {method}(self, amount):\n        self.{field} += amount\n\n\n"
        f"{name.lower()} = {name}()\n{calls}\nprint({name.lower()}.{field})  # {start + sum(steps)}"
    )
    return f"keep the {field} of a {name.lower()}", name, source


def program(rng: random.Random) -> tuple[str, str]:
    """What the program is to do, and its source."""
    request, _, source = rng.choice((scalar, scalar, loop, loop, small_class))(rng)
    return request, source


def make(rng: random.Random) -> str:
    return "\n\n\n".join(program(rng)[1] for _ in range(rng.choice((1, 1, 2))))
