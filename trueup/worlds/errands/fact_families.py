"""Families whose answer is a fact: the odd one out, equivalent fractions, two facts at once, a comparison."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from trueup.worlds.errands.family import (
    Answer,
    Content,
    Family,
    Slots,
    headed,
    of_first,
    some,
    sorted_items,
    spell,
)
from trueup.worlds.errands.templates import the_with_and, with_commas, with_or
from trueup.worlds.errands.vocabulary import (
    BY_NAME,
    CLASS_OF,
    FRACTIONS,
    GROUPS,
    ITEMS,
    MULTIPLIERS,
    group_of,
    members,
    size_of,
)


def _draw_odd(rng: random.Random) -> dict[str, Any]:
    """Draw two or three members of one group and one item of another."""
    group = rng.choice(GROUPS)
    odd = rng.choice([item for item in ITEMS if group_of(item) != group])
    return {"kind": "odd", "items": sorted([*some(rng, members(group), rng.choice((2, 3, 3))), odd])}


def _odd_answer(content: Content) -> Answer:
    groups = [group_of(item) for item in content["items"]]
    usual = max(groups, key=groups.count)
    odd = next(item for item in content["items"] if group_of(item) != usual)
    return ("odd", (odd,)), ("group", (usual,)), ("others", tuple(item for item in content["items"] if item != odd))


def _write_odd(content: Content, answer: Answer) -> str:
    odd, group, others = (with_commas(words) for _, words in answer)
    return f"the {odd}, because these are {group}: {others}."


ODD = Family(
    name="odd",
    asks={
        "odd": (
            "Which of these does not belong: {items}? Say why.",
            "Find the odd one out and say why: {items}.",
            "Here is my list: {items}. Which is the odd one, and why?",
        )
    },
    draw=_draw_odd,
    held_by=sorted_items,
    answer=_odd_answer,
    write=_write_odd,
    slots=of_first,
    form=spell(r"the <item>, because these are <group>: <item>(, <item>)*\."),
)


def _draw_fraction(rng: random.Random) -> dict[str, Any]:
    (top, bottom), times = rng.choice(FRACTIONS), rng.choice(MULTIPLIERS)
    kind = rng.choice(("denominator", "times"))
    return {"kind": kind, "top": top, "bottom": bottom, "times": times, "target": bottom * times}


def _fraction_answer(content: Content) -> Answer:
    top, bottom, times = content["top"], content["bottom"], content["times"]
    numbers = (top, bottom, top * times, bottom * times)
    return tuple(
        (label, (str(n),)) for label, n in zip(("top", "bottom", "new top", "new bottom"), numbers, strict=True)
    )


def _fraction_slots(keys: Sequence[str]) -> Slots:
    """Read the given fraction as one statement, and each number of the new one as another."""
    numbers = [key for key in keys if CLASS_OF[key] == "number"]
    return Slots(enumerate([" / ".join(numbers[:2]), *numbers[2:]])) if numbers else Slots()


FRACTION = Family(
    name="fractions",
    asks={
        "denominator": (
            "Write {top} / {bottom} with denominator {target}.",
            "Change {top} / {bottom} to denominator {target}.",
            "What is {top} / {bottom} with denominator {target}?",
        ),
        "times": (
            "Write {top} / {bottom} with both numbers times {times}.",
            "Change {top} / {bottom} to both numbers times {times}.",
            "What is {top} / {bottom} with both numbers times {times}?",
        ),
    },
    draw=_draw_fraction,
    held_by=lambda content: f"{content['top']} / {content['bottom']} times {content['times']}",
    answer=_fraction_answer,
    write=lambda _, answer: "{} / {} = {} / {}.".format(*(words[0] for _, words in answer)),
    slots=_fraction_slots,
    form=spell(r"<number> / <number> = <number> / <number>\."),
    styles=(with_commas,),
)

_LOOKED_UP: dict[str, Callable[[str], str]] = {
    "place": lambda item: BY_NAME[item].place,
    "colour": lambda item: BY_NAME[item].colour,
}


def _facts_answer(content: Content) -> Answer:
    return tuple((item, (_LOOKED_UP[content["kind"]](item),)) for item in content["items"])


def _write_facts(content: Content, answer: Answer) -> str:
    link = "is in the" if content["kind"] == "place" else "is"
    return " and ".join(f"the {item} {link} {words[0]}" for item, words in answer) + "."


FACTS = Family(
    name="facts",
    asks={
        "place": (
            "Where are {items}?",
            "Say where {items} are.",
            "Where do I find {items}?",
        ),
        "colour": (
            "What colour are {items}?",
            "Say what colour {items} are.",
            "Which colour do {items} have?",
        ),
    },
    draw=lambda rng: {"kind": rng.choice(tuple(_LOOKED_UP)), "items": some(rng, ITEMS, 2)},
    held_by=sorted_items,
    answer=_facts_answer,
    write=_write_facts,
    slots=headed("item", ("place", "colour")),
    form=spell(
        r"the <item> is in the <place> and the <item> is in the <place>\.|"
        r"the <item> is <colour> and the <item> is <colour>\."
    ),
    styles=(the_with_and,),
)

_PICKED: dict[str, Callable[..., str]] = {"largest": max, "smallest": min}
_OPPOSITE = {"largest": "smaller", "smallest": "larger"}


def _draw_choice(rng: random.Random) -> dict[str, Any]:
    return {"kind": rng.choice(tuple(_PICKED)), "items": some(rng, ITEMS, rng.choice((3, 3, 4)))}


def _choice_answer(content: Content) -> Answer:
    picked = _PICKED[content["kind"]](content["items"], key=size_of)
    return ("picked", (picked,)), ("others", tuple(item for item in content["items"] if item != picked))


def _write_choice(content: Content, answer: Answer) -> str:
    picked, others = (with_commas(words) for _, words in answer)
    return f"the {picked}, because these are {_OPPOSITE[content['kind']]}: {others}."


_CHOICE_ASKS = (
    "Which is the {kind}: {items}?",
    "Find the {kind} of these and say why: {items}.",
    "I can pack just one thing, the {kind}: {items}. Which is it?",
)


CHOICE = Family(
    name="choice",
    asks=dict.fromkeys(_PICKED, _CHOICE_ASKS),
    draw=_draw_choice,
    held_by=sorted_items,
    answer=_choice_answer,
    write=_write_choice,
    slots=of_first,
    form=spell(r"the <item>, because these are (larger|smaller): <item>(, <item>)*\."),
    styles=(with_commas, with_or),
)
