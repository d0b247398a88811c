"""Families whose answer is a list: put in order, sort into groups, count the members, write a note."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from trueup.worlds.errands.family import Answer, Content, Family, bag, headed, sorted_items, spell
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
        items = rng.sample(ITEMS, size)
        if len({group_of(item) for item in items}) in (2, 3):
            return {"kind": "groups", "items": items}


def _groups_answer(content: Content) -> Answer:
    """Groups and their members, both in the order in which the prompt names them."""
    items = sorted(content["items"])
    groups = dict.fromkeys(map(group_of, items))
    return tuple((group, tuple(item for item in items if group_of(item) == group)) for group in groups)


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
    """Draw two or three members of a group, hidden among other items."""
    group = rng.choice(GROUPS)
    inside = rng.sample(members(group), rng.choice((2, 2, 3)))
    outside = rng.sample([item for item in ITEMS if group_of(item) != group], rng.choice((1, 2)))
    return {"kind": "count", "group": group, "items": rng.sample(inside + outside, len(inside + outside))}


def _counted(content: Content) -> tuple[str, ...]:
    return tuple(item for item in sorted(content["items"]) if group_of(item) == content["group"])


def _write_count(content: Content, answer: Answer) -> str:
    (_, (count,)), (_, (group,)), (_, items) = answer
    return f"{count} {group}: {with_commas(items)}."


COUNT = Family(
    name="count",
    asks={
        "count": (
            "How many {group} are in this list, and which: {items}?",
            "Count the {group} and name them: {items}.",
            "Here is my list: {items}. Which of these are {group}, and how many?",
        )
    },
    draw=_draw_count,
    held_by=lambda content: " ".join(sorted(_counted(content))),
    answer=lambda c: (("count", (str(len(_counted(c))),)), ("group", (c["group"],)), ("items", _counted(c))),
    write=_write_count,
    slots=bag,
    form=spell(r"<number> <group>: <item>(, <item>)*\."),
)


def _draw_note(rng: random.Random) -> dict[str, Any]:
    return {"kind": "note", "title": rng.choice(TITLES), "items": rng.sample(ITEMS, rng.choice((2, 3, 3, 4)))}


def _note_answer(content: Content) -> Answer:
    items = tuple(sorted(content["items"]))
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
