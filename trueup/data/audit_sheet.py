"""What an audit looks at: the rows of any trained shape as prompts with wanted and unwanted responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trueup.data.families import EXAMPLES, JUDGED, PAIRS, Family
from trueup.data.formats import read_rows
from trueup.data.read import read_examples, read_judged, read_pairs
from trueup.data.recognise import recognise
from trueup.data.records import Loaded, Prompt
from trueup.errors import UserError

Kind = Literal["pairs", "judged", "examples"]

PLACES = 5
"""How many places a tally names."""

_KINDS: dict[Kind, tuple[Family[Any], Callable[..., Loaded[Any]]]] = {
    "pairs": (PAIRS, read_pairs),
    "judged": (JUDGED, read_judged),
    "examples": (EXAMPLES, read_examples),
}
KINDS: tuple[Kind, ...] = tuple(_KINDS)
"""Kinds of rows, in the order in which a file is tried as them."""


@dataclass(frozen=True)
class Side:
    """Responses of one verdict.

    Attributes:
        texts: ``[n]``.
        rows: i64 ``[n]``, the row each is from.
    """

    texts: tuple[str, ...]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Sheet:
    """The rows of a file, by kind.

    Attributes:
        kind: of a pair, row i gives entry i of both sides; a judged row gives one of one side; an example is wanted.
        where: ``[rows]``, each row's place in its file.
        prompts: ``[rows]``.
        group: i64 ``[rows]``; rows with one and the same prompt share a number, and no others do.
        wanted, unwanted: chosen and rejected, or thumbs up and down; examples leave ``unwanted`` empty.
    """

    kind: Kind
    where: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    group: NDArray[np.int64]
    wanted: Side
    unwanted: Side

    def groups_of(self, side: Side) -> NDArray[np.int64]:
        """The prompt number of each response of a side."""
        return self.group[side.rows]

    @property
    def responses(self) -> Iterable[tuple[str, int]]:
        """Every response with its row, wanted before unwanted."""
        for side in (self.wanted, self.unwanted):
            yield from zip(side.texts, side.rows.tolist(), strict=True)


def read_any(path: str | Path, kind: Kind | None = None) -> tuple[Kind, Loaded[Any]]:
    """Read a file, all of it, as the first kind that its first row fits, or as ``kind``.

    Raises:
        UserError: as the readers; for a row that fits no kind, what is wrong with the kind that is nearest.
    """
    found = kind or _kind_of(Path(path))
    return found, _KINDS[found][1](path).whole()


def _kind_of(path: Path) -> Kind:
    row = next(read_rows(path), None) if path.is_file() and path.stat().st_size else None
    if row is None:
        return "pairs"  # whose reader says what is wrong with the file
    errors = []
    for kind, (family, _) in _KINDS.items():
        try:
            recognise(path, row, family)
        except UserError as error:
            errors.append(error)
        else:
            return kind
    # A kind whose columns are there and whose cells are wrong is nearer than one whose columns are not.
    raise next((error for error in errors if str(error).startswith(f"{row.where}: field")), errors[0])


def make_sheet(kind: Kind, records: Iterable[Any]) -> Sheet:
    """Lay out the records of a reader for an audit; all texts are held in memory."""
    rows = list(records)
    numbers: dict[Prompt, int] = {}
    group = np.array([numbers.setdefault(row.prompt, len(numbers)) for row in rows], dtype=np.int64)
    every = range(len(rows))
    if kind == "pairs":
        sides = _side([row.chosen for row in rows], every), _side([row.rejected for row in rows], every)
    else:
        good = [i for i in every if kind == "examples" or rows[i].label]
        bad = sorted(set(every).difference(good))
        sides = _side([rows[i].response for i in good], good), _side([rows[i].response for i in bad], bad)
    where, prompts = tuple(row.where for row in rows), tuple(row.prompt for row in rows)
    return Sheet(kind, where, prompts, group, *sides)


def _side(texts: Sequence[str], rows: Iterable[int]) -> Side:
    return Side(tuple(texts), np.array(list(rows), dtype=np.int64))


def tally(places: Sequence[str], of: int) -> dict[str, Any]:
    """Count, share of ``of`` and the first places: how every count of an audit is given."""
    return {"count": len(places), "of": of, "share": len(places) / of if of else 0.0, "places": list(places[:PLACES])}
