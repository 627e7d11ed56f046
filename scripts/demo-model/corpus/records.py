"""JSON records of several kinds, pretty-printed or on one line, with values that fit each other."""

from __future__ import annotations

import json
import random

from . import words

LAST = [
    "Berg",
    "Costa",
    "Dale",
    "Ito",
    "Khan",
    "Lind",
    "Moore",
    "Novak",
    "Okoye",
    "Petit",
    "Rossi",
    "Silva",
    "Weber",
    "Young",
]
CITIES = [
    "Lisbon",
    "Oslo",
    "Vienna",
    "Dublin",
    "Lima",
    "Kyoto",
    "Riga",
    "Porto",
    "Ghent",
    "Turin",
    "Quito",
    "Perth",
]
PRODUCTS = [
    "lamp",
    "chair",
    "kettle",
    "notebook",
    "backpack",
    "teapot",
    "clock",
    "blanket",
    "bicycle",
    "umbrella",
]
TAGS = ["new", "sale", "home", "garden", "kids", "sport", "travel", "office"]
CURRENCIES = ["EUR", "USD", "GBP"]


def person(rng: random.Random) -> dict:
    first, last = rng.choice(words.GIRLS + words.BOYS), rng.choice(LAST)
    return {
        "id": rng.randint(100, 9999),
        "name": f"{first} {last}",
        "email": f"{first.lower()}.{last.lower()}@example.com",
        "age": rng.randint(18, 80),
        "city": rng.choice(CITIES),
        "active": rng.random() < 0.7,
    }


def product(rng: random.Random) -> dict:
    name, colour = rng.choice(PRODUCTS), rng.choice(words.COLOURS)
    stock = rng.choice((0, rng.randint(1, 200)))
    return {
        "sku": f"{name[:2].upper()}-{rng.randint(1000, 9999)}",
        "name": f"{colour} {name}",
        "price": rng.randint(3, 250) + rng.choice((0, 0.5, 0.99)),
        "currency": rng.choice(CURRENCIES),
        "stock": stock,
        "available": stock > 0,
        "tags": rng.sample(TAGS, rng.randint(1, 3)),
    }


def order(rng: random.Random) -> dict:
    items, total = [], 0
    for _ in range(rng.randint(1, 3)):
        price, count = rng.randint(2, 60), rng.randint(1, 5)
        items.append({"product": rng.choice(PRODUCTS), "quantity": count, "price": price})
        total += price * count
    return {
        "order": rng.randint(10000, 99999),
        "customer": rng.choice(words.GIRLS + words.BOYS),
        "items": items,
        "total": total,
        "status": rng.choice(("open", "paid", "shipped", "returned")),
    }


def weather(rng: random.Random) -> dict:
    low = rng.randint(-10, 20)
    return {
        "city": rng.choice(CITIES),
        "date": date(rng),
        "temperature": {"min": low, "max": low + rng.randint(2, 12)},
        "wind_kmh": rng.randint(0, 60),
        "sky": rng.choice(("clear", "cloudy", "rain", "snow", "fog")),
    }


def book(rng: random.Random) -> dict:
    return {
        "title": f"The {rng.choice(words.COLOURS).capitalize()} {rng.choice(words.TREASURES).title()}",
        "author": f"{rng.choice(words.GIRLS + words.BOYS)} {rng.choice(LAST)}",
        "year": rng.randint(1900, 2024),
        "pages": rng.randint(60, 600),
        "rating": rng.randint(10, 50) / 10,
        "borrowed": rng.choice((None, date(rng))),
    }


def event(rng: random.Random) -> dict:
    return {
        "type": rng.choice(("login", "logout", "click", "error", "upload")),
        "user": rng.randint(100, 9999),
        "time": f"{date(rng)}T{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:00Z",
        "ok": rng.random() < 0.8,
        "ms": rng.randint(1, 900),
    }


def date(rng: random.Random) -> str:
    return f"{rng.randint(2015, 2025)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


KINDS = {
    "person": person,
    "product": product,
    "order": order,
    "weather report": weather,
    "book": book,
    "log event": event,
}


def render(rng: random.Random, value: object) -> str:
    return json.dumps(value, indent=2) if rng.random() < 0.6 else json.dumps(value)


def make(rng: random.Random) -> str:
    """One record, a list of records, or several lines of one kind."""
    kind, form = rng.choice(list(KINDS.values())), rng.random()
    if form < 0.5:
        return render(rng, kind(rng))
    values = [kind(rng) for _ in range(rng.randint(2, 3))]
    return render(rng, values) if form < 0.75 else "\n".join(json.dumps(v) for v in values)
