"""What a file can be read as: each family's shapes, and how a row's parts become its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from trueup.data.records import Dropped, Example, Judged, Pair, PromptOnly
from trueup.data.rows import Row, number
from trueup.data.shapes import EXAMPLE_SHAPES, JUDGED_SHAPES, PAIR_SHAPES, PROMPT_SHAPES, Parts, Shape

T = TypeVar("T")

_SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))


@dataclass(frozen=True, slots=True)
class Family(Generic[T]):
    """Shapes that yield one kind of record.

    Attributes:
        name: what the rows are, for people.
        verb: the command that such a file is for.
        shapes: tried in order; exactly one must fit.
        build: (row, its parts, its shape) -> record.
        optional: columns that ``build`` uses where present.
    """

    name: str
    verb: str
    shapes: tuple[Shape, ...]
    build: Callable[[Row, Parts, Shape], T | Dropped]
    optional: tuple[str, ...] = ()


def _reply(row: Row, parts: Parts, shape: Shape) -> str:
    if not parts.responses:
        field = next(iter(shape.columns))
        raise row.refusal(field, "ends with the user's turn", "end it with the assistant's reply or remove the row")
    return parts.responses[0]


def _example(row: Row, parts: Parts, shape: Shape) -> Example:
    return Example(parts.prompt, _reply(row, parts, shape), row.where)


def _judged(row: Row, parts: Parts, shape: Shape) -> Judged:
    return Judged(parts.prompt, _reply(row, parts, shape), row.cells["label"], row.where)


def _pair(row: Row, parts: Parts, shape: Shape) -> Pair | Dropped:
    chosen, rejected = parts.responses
    if chosen == rejected:
        return Dropped("identical chosen and rejected")
    margin = _told_margin(row) if parts.margin is None else parts.margin
    return Pair(parts.prompt, chosen, rejected, row.where, margin)


def _told_margin(row: Row) -> float | None:
    """Return the ``margin`` column, else the difference of the two score columns, else None."""
    if "margin" in row.cells:
        return number(row, "margin", row.cells["margin"])
    for names in _SCORES:
        present = [name for name in names if name in row.cells]
        if len(present) == 1:
            (other,) = set(names).difference(present)
            problem = f"has no partner for the other response: {other!r} {row.absence(other)}"
            raise row.refusal(present[0], problem, f"fill in {other!r} or remove {present[0]!r}")
        if present:
            chosen, rejected = (number(row, name, row.cells[name]) for name in names)
            return chosen - rejected
    return None


def _prompt(row: Row, parts: Parts, shape: Shape) -> PromptOnly:
    name = row.cells.get("id", row.number)
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise row.refusal("id", f"is {type(name).__name__}", "make it text or a whole number")
    meta = {key: cell for key, cell in row.cells.items() if key not in {"id", *shape.columns, *shape.optional}}
    return PromptOnly(parts.prompt, row.where, str(name), meta)


EXAMPLES = Family("examples to imitate", "trueup sft", EXAMPLE_SHAPES, _example)
PAIRS = Family(
    "preference pairs",
    "trueup dpo",
    PAIR_SHAPES,
    _pair,
    optional=("margin", *(name for names in _SCORES for name in names)),
)
JUDGED = Family("judged responses", "trueup kto", JUDGED_SHAPES, _judged)
PROMPTS = Family("prompts", "trueup eval", PROMPT_SHAPES, _prompt)
