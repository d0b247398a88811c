"""The closed tables of the errands world: things and what is true of them, and the words answers are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """One item. ``centimetres`` is its typical longest side, and only its rank among the others matters."""

    name: str
    group: str
    centimetres: float
    place: str
    colour: str


THINGS = (
    Thing("ant", "animals", 0.5, "garden", "black"),
    Thing("cat", "animals", 45, "house", "white"),
    Thing("horse", "animals", 240, "field", "brown"),
    Thing("whale", "animals", 2500, "sea", "blue"),
    Thing("cherry", "fruits", 2.5, "garden", "red"),
    Thing("plum", "fruits", 5, "market", "blue"),
    Thing("pear", "fruits", 9, "garden", "yellow"),
    Thing("melon", "fruits", 24, "field", "green"),
    Thing("wrench", "tools", 21, "shed", "grey"),
    Thing("hammer", "tools", 35, "shed", "black"),
    Thing("rake", "tools", 150, "garden", "brown"),
    Thing("ladder", "tools", 300, "shed", "white"),
    Thing("glove", "clothes", 18, "house", "white"),
    Thing("hat", "clothes", 27, "market", "black"),
    Thing("shirt", "clothes", 70, "market", "blue"),
    Thing("coat", "clothes", 110, "house", "green"),
    Thing("bike", "vehicles", 175, "street", "red"),
    Thing("car", "vehicles", 450, "street", "grey"),
    Thing("bus", "vehicles", 1200, "street", "yellow"),
    Thing("ship", "vehicles", 30000, "sea", "red"),
)

BY_NAME = {thing.name: thing for thing in THINGS}
ITEMS = tuple(BY_NAME)
GROUPS = tuple(dict.fromkeys(thing.group for thing in THINGS))
PLACES = tuple(dict.fromkeys(thing.place for thing in THINGS))
COLOURS = tuple(dict.fromkeys(thing.colour for thing in THINGS))
TITLES = ("picnic", "school", "party", "trip", "camp", "work")

MULTIPLIERS = (2, 3)
FRACTIONS = tuple((a, b) for b in range(2, 13) for a in range(1, b) if math.gcd(a, b) == 1)
NUMBERS = tuple(
    str(n)
    for n in sorted(
        {k for a, b in FRACTIONS for k in (a, b)} | {m * k for ab in FRACTIONS for k in ab for m in MULTIPLIERS}
    )
)

WORDS_OF_CLASS = {
    "item": ITEMS,
    "group": GROUPS,
    "place": PLACES,
    "colour": COLOURS,
    "title": TITLES,
    "number": NUMBERS,
}
CLASS_OF = {word: name for name, words in WORDS_OF_CLASS.items() for word in words}
"""The class of each key word. Key words carry the content of an answer; all other words are its form."""

FILLERS = ("well", "maybe", "also", "really")
"""Words no answer needs; the demonstrator lets them slip in."""


def members(group: str) -> tuple[str, ...]:
    """Return the items of ``group``, in the order of the table."""
    return tuple(thing.name for thing in THINGS if thing.group == group)


def group_of(item: str) -> str:
    """Return the group that ``item`` belongs to."""
    return BY_NAME[item].group


def size_of(item: str) -> float:
    """Return the length of ``item`` in centimetres; no two items are equal."""
    return BY_NAME[item].centimetres
