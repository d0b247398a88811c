"""The readers: a file in any known shape in, records with their places out; see `shapes` for what is known.

Every reader takes ``.jsonl``, ``.json`` (an array), ``.csv``, ``.tsv``, ``.txt`` (prompts, one a line), ``.parquet``,
``.arrow`` and ``.feather``; text formats also with ``.gz``. ``limit`` stops after so many records and leaves the rest
of the file unread and unchecked. What cannot be used is refused with a `UserError` that names file, place and field,
or dropped with a count; nothing is repaired.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from trueup.data.families import EXAMPLES, JUDGED, PAIRS, PROMPTS, Family
from trueup.data.formats import fingerprint, read_rows
from trueup.data.recognise import check_agrees, recognise
from trueup.data.records import Example, Judged, Loaded, Pair, PromptOnly
from trueup.data.shapes import Dropped
from trueup.errors import UserError

T = TypeVar("T")


def read_examples(path: str | Path, *, limit: int | None = None) -> Loaded[Example]:
    """Read responses to imitate (`trueup sft`)."""
    return _load(Path(path), EXAMPLES, limit)


def read_pairs(path: str | Path, *, limit: int | None = None) -> Loaded[Pair]:
    """Read preference pairs (`trueup dpo`, `trueup reward`); rows whose two sides are equal are dropped and counted."""
    return _load(Path(path), PAIRS, limit)


def read_judged(path: str | Path, *, limit: int | None = None) -> Loaded[Judged]:
    """Read responses with a true or false label (`trueup kto`)."""
    return _load(Path(path), JUDGED, limit)


def read_prompts(path: str | Path, *, limit: int | None = None) -> Loaded[PromptOnly]:
    """Read prompts alone, or the prompts of any other shape; columns that make no prompt are kept in ``meta``."""
    loaded = _load(Path(path), PROMPTS, limit)
    first_with: dict[str, str] = {}
    for record in loaded.records:
        earlier = first_with.setdefault(record.id, record.where)
        if earlier != record.where:
            remedy = "make the ids unique, or rename the column if it names something else"
            raise UserError(f"{record.where}: field 'id' is {record.id!r}, as in {earlier}; {remedy}")
    return replace(loaded, unused=())


def _load(path: Path, family: Family[T], limit: int | None) -> Loaded[T]:
    if limit is not None and limit < 1:
        raise UserError(f"{path}: a limit of {limit} records leaves nothing to read; give at least 1")
    digest = fingerprint(path)
    rows = read_rows(path)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path}: has no rows; write at least one")
    shape = recognise(path, first, family)
    records: list[T] = []
    dropped: Counter[str] = Counter()
    columns: dict[str, None] = {}
    for row in chain([first], rows):
        check_agrees(row, shape, first)
        columns |= dict.fromkeys(row.cells)
        parts = shape.split(row)
        record = parts if isinstance(parts, Dropped) else family.build(row, parts, shape)
        if isinstance(record, Dropped):
            dropped[record.reason] += 1
            continue
        records.append(record)
        if len(records) == limit:
            break
    if not records:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items())
        raise UserError(f"{path}: no row can be used ({reasons}); check how the file was made")
    used = {*shape.columns, *shape.optional, *family.optional}
    unused = tuple(name for name in columns if name not in used)
    return Loaded(tuple(records), shape.label, dict(dropped), unused, str(path), digest)
