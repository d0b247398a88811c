"""Families whose answer is a list: put in order, sort into groups, count the members, write a note."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from trueup.worlds.errands.family import Answer, Content, Family, bag, headed, some, sorted_items, spell
from trueup.worlds.errands.templates import with_commas
from trueup.worlds.errands.vocabulary import GROUPS, ITEMS, TITLES, group_of, members, size_of

_SORTED: dict[str, Callable[[list[str]], list[str]]] = {
    "by size, smallest first": lambda items: sorted(items, key=size_of),
    "from a to z": sorted,
}
_ORDER_ASKS = (
    "Put these in order {kind}: {items}.",
    "Here is my list: {items}. Sort it {kind}.",
    "I pack these things {kind}: {items}. What is the order?",
)


def _draw_order(rng: random.Random) -> dict[str, Any]:
    return {"kind": rng.choice(tuple(_SORTED)), "items": rng.sample(ITEMS, rng.choice((3, 3, 4)))}


ORDER = Family(
    name="order",
    asks=dict.fromkeys(_SORTED, _ORDER_ASKS),
    draw=_draw_order,
    held_by=sorted_items,
    answer=lambda content: (("items", tuple(_SORTED[content["kind"]](content["items"]))),),
    write=lambda _, answer: f"{with_commas(answer[0][1])}.",
    slots=bag,
    form=spell(r"<item>(, <item>)*\."),
)


def _draw_groups(rng: random.Random) -> dict[str, Any]:
    """Draw three or four items of two or three groups."""
    size = rng.choice((3, 3, 4))
    while True:
        items = some(rng, ITEMS, size)
        if len({group_of(item) for item in items}) in (2, 3):
            return {"kind": "groups", "items": items}


def _groups_answer(content: Content) -> Answer:
    """Groups and their members, both in the order in which the prompt names them."""
    groups = dict.fromkeys(group_of(item) for item in content["items"])
    return tuple((group, tuple(item for item in content["items"] if group_of(item) == group)) for group in groups)


GROUP = Family(
    name="groups",
    asks={
        "groups": (
            "Sort these into groups: {items}.",
            "Here is my list: {items}. Put these into groups.",
            "Which groups do these things belong to: {items}?",
        )
    },
    draw=_draw_groups,
    held_by=sorted_items,
    answer=_groups_answer,
    write=lambda _, answer: "; ".join(f"{group}: {with_commas(items)}" for group, items in answer) + ".",
    slots=headed("group", ("item",)),
    form=spell(r"<group>: <item>(, <item>)*(; <group>: <item>(, <item>)*)*\."),
)


def _draw_count(rng: random.Random) -> dict[str, Any]:
    """Draw two or three members of a group, among one or two other items."""
    group = rng.choice(GROUPS)
    inside = some(rng, members(group), rng.choice((2, 2, 3)))
    outside = some(rng, [item for item in ITEMS if group_of(item) != group], rng.choice((1, 2)))
    return {"kind": "count", "group": group, "items": sorted(inside + outside)}


def _count_answer(content: Content) -> Answer:
    inside = tuple(item for item in content["items"] if group_of(item) == content["group"])
    others = tuple(item for item in content["items"] if item not in inside)
    return ("count", (str(len(inside)),)), ("group", (content["group"],)), ("inside", inside), ("others", others)


def _write_count(content: Content, answer: Answer) -> str:
    count, group, inside, others = (with_commas(words) for _, words in answer)
    return f"{count} {group}: {inside}; others: {others}."


COUNT = Family(
    name="count",
    asks={
        "count": (
            "How many {group} are in this list, and what are the others: {items}?",
            "Count the {group}, name them, and then name the others: {items}.",
            "Here is my list: {items}. How many are {group}, and what are the others?",
        )
    },
    draw=_draw_count,
    held_by=sorted_items,
    answer=_count_answer,
    write=_write_count,
    slots=bag,
    form=spell(r"<number> <group>: <item>(, <item>)*; others: <item>(, <item>)*\."),
)


def _draw_note(rng: random.Random) -> dict[str, Any]:
    return {"kind": "note", "title": rng.choice(TITLES), "items": some(rng, ITEMS, rng.choice((2, 3, 3, 4)))}


def _note_answer(content: Content) -> Answer:
    items = tuple(content["items"])
    return ("title", (content["title"],)), ("items", items), ("count", (str(len(items)),))


NOTE = Family(
    name="note",
    asks={
        "note": (
            "Write a note with the title {title} and these things: {items}.",
            "I need a note for my {title} list: {items}.",
            "Make a short note, title {title}, of these items: {items}.",
        )
    },
    draw=_draw_note,
    held_by=sorted_items,
    answer=_note_answer,
    write=lambda _, answer: "; ".join(f"{label}: {with_commas(words)}" for label, words in answer) + ".",
    slots=bag,
    form=spell(r"title: <title>; items: <item>(, <item>)*; count: <number>\."),
)
