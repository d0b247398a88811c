"""Which shape a file has, told by its first row; every later row is held to it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from trueup.data.families import EXAMPLES, JUDGED, PAIRS, PROMPTS, Family
from trueup.data.rows import COLUMNS_SHOWN, Row, describe
from trueup.data.shapes import Shape
from trueup.errors import UserError, nearest

# The prompts of every shape can be read, so its family has all shapes.
_KNOWN = frozenset(chain.from_iterable(shape.columns for shape in PROMPTS.shapes))


def recognise(path: str | Path, row: Row, family: Family) -> Shape:
    """Return the one shape of ``family`` that the first row fits.

    Raises:
        UserError: no shape or several fit, with the columns seen and the known shapes; or another family's does, with
            the verb it is for.
    """
    fitting = [shape for shape in family.shapes if _has_columns(shape, row) and not _wrong_kinds(shape, row)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(shape.label for shape in fitting)
        raise UserError(f"{path}: fits several shapes: {names}; {row.seen}; remove the columns that are not meant")
    _refuse_wrong_kinds(row, [shape for shape in family.shapes if _has_columns(shape, row)])
    for other in (EXAMPLES, PAIRS, JUDGED):
        if any(_has_columns(shape, row) for shape in other.shapes):
            raise UserError(f"{path}: holds {other.name}, not {family.name}; `{other.verb}` is for those; {row.seen}")
    known = "; ".join(shape.label for shape in _plainest(family.shapes))
    raise UserError(
        f"{path}: no known shape of {family.name} fits; {row.seen}{_misspelt(row, family)}; known shapes: {known}"
    )


def check_agrees(row: Row, shape: Shape, first: Row) -> None:
    """Refuse a later row that is not of the first row's shape."""
    for name in shape.columns:
        if name not in row.cells:
            remedy = f"give every row the shape of the first: {shape.label}"
            raise row.refusal(name, f"{row.absence(name)}; {row.seen}", remedy)
    for name in row.cells:
        if name in _KNOWN and name not in first.cells and name not in shape.optional:
            there = "is null in the first" if name in first.columns else "not in the first"
            raise row.refusal(name, f"is in this row, but {there}", "give all rows the same columns")
    _refuse_wrong_kinds(row, [shape])


def _has_columns(shape: Shape, row: Row) -> bool:
    return shape.columns.keys() <= row.cells.keys() and shape.without.isdisjoint(row.cells)


def _wrong_kinds(shape: Shape, row: Row) -> list[str]:
    return [name for name, kind in shape.columns.items() if describe(row.cells[name]) != kind]


def _refuse_wrong_kinds(row: Row, near: list[Shape]) -> None:
    """Name the first cell that keeps the row from the nearest of the shapes whose columns it has."""
    if not near:
        return
    shape = min(near, key=lambda shape: len(_wrong_kinds(shape, row)))
    for name in _wrong_kinds(shape, row)[:1]:
        found = describe(row.cells[name])
        kinds = dict.fromkeys(other.columns[name] for other in near if name in other.columns)
        # A kind that some shape takes is wrong here only beside the other cells.
        wanted = shape.columns[name] if found in kinds else " or ".join(kinds)
        raise row.refusal(name, f"must be {wanted}, but is {found}", f"correct it (the row is read as {shape.label})")


def _plainest(shapes: Iterable[Shape]) -> list[Shape]:
    """Those to tell a reader of: a shape with the columns of an earlier one, or with more, is left out."""
    told: list[Shape] = []
    for shape in shapes:
        if not any(other.columns.keys() <= shape.columns.keys() for other in told):
            told.append(shape)
    return told


def _misspelt(row: Row, family: Family) -> str:
    """Return a hint for the first unknown column that is close to one of the family's that is missing."""
    missing = sorted({name for shape in family.shapes for name in shape.columns}.difference(row.columns))
    hints = ((name, nearest(name[:60], missing)) for name in list(row.cells)[:COLUMNS_SHOWN] if name not in _KNOWN)
    return next((f" ({name[:60]!r}{hint})" for name, hint in hints if hint), "")
