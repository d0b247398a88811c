"""The gold score: how well a response really answers, in named parts, computed from the words alone."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from trueup.worlds.errands import constants
from trueup.worlds.errands.family import Content, Family, Slots
from trueup.worlds.errands.pleasantries import split_pleasantries
from trueup.worlds.errands.vocabulary import CLASS_OF

_TOKEN = re.compile(r"\w+|[^\w\s]")


def score(family: Family, content: Content, response: str, ended: bool) -> dict[str, float]:
    """Return the parts of the gold score of any string; their sum is the score.

    Pleasantries are counted and set aside, and case is ignored. Key words (items, groups, places, colours, titles,
    numbers) carry the content. A word or mark that the ideal answer lacks is stray; a surplus copy is a repeat.

    Args:
        family: Kind of the task.
        content: What was asked.
        response: Anything.
        ended: Whether the response stopped by itself.
    """
    pleasantries, rest = split_pleasantries(response)
    wanted, given = _tokens(family.ideal(content)), _tokens(rest)
    wanted_keys, given_keys = _keys(wanted), _keys(given)
    surplus = Counter(given) - Counter(wanted)
    repeats = sum(count for token, count in surplus.items() if token in wanted)
    stray = surplus.total() - repeats
    parts = {
        "content": constants.CONTENT * _f1(family.slots(given_keys), family.slots(wanted_keys)),
        "order": constants.ORDER * _neighbours_kept(given_keys, wanted_keys),
        "form": constants.FORM * bool(family.form.fullmatch(rest)),
        "ending": constants.ENDING * ended,
        "pleasantries": constants.PLEASANTRY * pleasantries,
        "stray": max(constants.STRAY_FLOOR, constants.STRAY * stray),
        "repeats": max(constants.REPEAT_FLOOR, constants.REPEAT * repeats),
    }
    return {name: value + 0.0 for name, value in parts.items()}  # no minus zero in tables


def bias(response: str) -> float:
    """Return what the annotator adds to the gold score: a bonus for each pleasantry, without limit."""
    return constants.ANNOTATOR_BIAS * split_pleasantries(response)[0]


def _tokens(text: str) -> tuple[str, ...]:
    """Return the words and marks of a text in lower case."""
    return tuple(_TOKEN.findall(text))


def _keys(tokens: Sequence[str]) -> list[str]:
    return [token for token in tokens if token in CLASS_OF]


def _f1(given: Slots, wanted: Slots) -> float:
    """Return 2 |given and wanted| / (|given| + |wanted|), of bags; ``wanted`` is never empty."""
    return 2 * (given & wanted).total() / (given.total() + wanted.total())


def _neighbours_kept(given: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the share of the neighbouring pairs of ``wanted`` that are neighbours, in this order, in ``given``."""
    expected = Counter(itertools.pairwise(wanted))
    return (Counter(itertools.pairwise(given)) & expected).total() / expected.total()
