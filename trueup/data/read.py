"""The readers: a file in any known shape in, records with their places out; see `shapes` for what is known.

Every reader takes ``.jsonl``, ``.json`` (an array), ``.csv``, ``.tsv``, ``.txt`` (prompts, one a line), ``.parquet``,
``.arrow`` and ``.feather``; text formats also with ``.gz``; and the folders and data sets of `origin`. ``limit`` stops
after so many records and leaves the rest of the file unread and unchecked. What cannot be used is refused with a
`UserError` that names file, place and field, or dropped with a count; nothing is repaired.

A reader looks at the first row only, which tells the shape. The rows are read when somebody loops over them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from trueup.data.families import EXAMPLES, JUDGED, PAIRS, PROMPTS, Family
from trueup.data.origin import Origin, locate
from trueup.data.recognise import check_agrees, recognise
from trueup.data.records import Dropped, Example, Judged, Loaded, Pair, PromptOnly
from trueup.data.rows import Row
from trueup.data.shapes import Shape
from trueup.errors import UserError

T = TypeVar("T")


def read_examples(path: str | Path, *, limit: int | None = None) -> Loaded[Example]:
    """Read responses to imitate (`trueup sft`)."""
    return _load(path, EXAMPLES, limit)


def read_pairs(path: str | Path, *, limit: int | None = None) -> Loaded[Pair]:
    """Read preference pairs (`trueup dpo`, `trueup reward`); rows whose two sides are equal are dropped and counted."""
    return _load(path, PAIRS, limit)


def read_judged(path: str | Path, *, limit: int | None = None) -> Loaded[Judged]:
    """Read responses with a true or false label (`trueup kto`)."""
    return _load(path, JUDGED, limit)


def read_prompts(path: str | Path, *, limit: int | None = None) -> Loaded[PromptOnly]:
    """Read prompts alone, or the prompts of any other shape; columns that make no prompt are kept in ``meta``."""
    loaded = _load(path, PROMPTS, limit)
    return replace(loaded, rows=_Unique(loaded.rows), ignored={})


def _load(path: str | Path, family: Family[T], limit: int | None) -> Loaded[T]:
    if limit is not None and limit < 1:
        raise UserError(f"{path}: a limit of {limit} records leaves nothing to read; give at least 1")
    origin = locate(path)
    before, digest, kind = origin.stamp(), origin.fingerprint(), origin.kind()
    with closing(origin.rows()) as rows:
        first = next(rows, None)
    if first is None:
        raise UserError(f"{origin.name}: has no rows; write at least one")
    shape = recognise(origin.name, first, family)
    ignored: dict[str, None] = {}
    records = _Records(origin, family, shape, first, limit, before, ignored)
    identity = f"{digest} {kind} {family.name} {shape.label} {limit}"
    return Loaded(records, shape.label, origin.name, digest, identity, ignored)


@dataclass(frozen=True)
class _Records(Generic[T]):
    """A file's rows as records; every loop reads the file from its start.

    Attributes:
        first: the first row, which later ones must agree with.
        stamp: what tells that the file was changed after its fingerprint was taken.
        ignored: gets the columns that nothing uses.
    """

    origin: Origin
    family: Family[T]
    shape: Shape
    first: Row
    limit: int | None
    stamp: object
    ignored: dict[str, None]

    def __iter__(self) -> Iterator[T | Dropped]:
        used = {*self.shape.columns, *self.shape.optional, *self.family.optional}
        kept, dropped = 0, Counter[str]()
        for row in self.origin.rows():
            check_agrees(row, self.shape, self.first)
            self.ignored.update((name, None) for name in row.cells if name not in used)
            parts = self.shape.split(row)
            record = parts if isinstance(parts, Dropped) else self.family.build(row, parts, self.shape)
            if isinstance(record, Dropped):
                dropped[record.reason] += 1
            else:
                kept += 1
            yield record
            if kept == self.limit:
                break
        if not kept:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items())
            raise UserError(f"{self.origin.name}: no row can be used ({reasons}); check how the file was made")
        if self.origin.stamp() != self.stamp:
            raise UserError(f"{self.origin.name}: was changed while it was read; start again when it is complete")


@dataclass(frozen=True)
class _Unique:
    """Prompts whose ids must differ, which is known after the last: eight bytes a prompt are held until then."""

    rows: Iterable[PromptOnly | Dropped]

    def __iter__(self) -> Iterator[PromptOnly | Dropped]:
        seen = array("q")
        for row in self.rows:
            if not isinstance(row, Dropped):
                seen.append(hash(row.id))
            yield row
        if repeated := _repeated(seen):
            self._refuse(repeated)

    def _refuse(self, hashes: set[int]) -> None:
        """Read again and refuse the second of two equal ids; hashes may be equal where ids are not."""
        first_with: dict[str, str] = {}
        for row in self.rows:
            if isinstance(row, Dropped) or hash(row.id) not in hashes:
                continue
            earlier = first_with.setdefault(row.id, row.where)
            if earlier != row.where:
                remedy = "make the ids unique, or rename the column if it names something else"
                raise UserError(f"{row.where}: field 'id' is {row.id!r}, as in {earlier}; {remedy}")


def _repeated(numbers: array[int]) -> set[int]:
    """Those that occur more than once."""
    import numpy as np

    ordered = np.sort(np.frombuffer(numbers, np.int64))
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
