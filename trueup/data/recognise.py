"""Which shape a file has, told by its first row; every later row is held to it."""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from pathlib import Path

from trueup.data.families import EXAMPLES, JUDGED, PAIRS, PROMPTS, Family
from trueup.data.rows import Row, describe
from trueup.data.shapes import Shape
from trueup.errors import UserError, nearest

# The prompts of every shape can be read, so its family has all shapes.
_KNOWN = frozenset(chain.from_iterable(shape.columns for shape in PROMPTS.shapes))
_COLUMNS_SHOWN = 12


def recognise(path: str | Path, row: Row, family: Family) -> Shape:
    """Return the one shape of ``family`` that the first row fits.

    Raises:
        UserError: no shape or several fit, with the columns seen and the shapes tried; or another family's does, with
            the verb it is for.
    """
    fitting = [shape for shape in family.shapes if _has_columns(shape, row) and not _wrong_kinds(shape, row)]
    if len(fitting) == 1:
        return fitting[0]
    seen = f"columns seen: {_shown(row.cells)}"
    if fitting:
        names = " and ".join(shape.label for shape in fitting)
        raise UserError(f"{path}: fits several shapes: {names}; {seen}; remove the columns that are not meant")
    _refuse_wrong_kinds(row, [shape for shape in family.shapes if _has_columns(shape, row)])
    for other in (EXAMPLES, PAIRS, JUDGED):
        if any(_has_columns(shape, row) for shape in other.shapes):
            raise UserError(f"{path}: holds {other.name}, not {family.name}; `{other.verb}` is for those; {seen}")
    tried = "; ".join(shape.label for shape in family.shapes)
    raise UserError(f"{path}: no known shape of {family.name} fits; {seen}{_misspelt(row)}; shapes tried: {tried}")


def check_agrees(row: Row, shape: Shape, first: Row) -> None:
    """Refuse a later row that is not of the first row's shape."""
    for name in shape.columns:
        if name not in row.cells:
            remedy = f"every row must be {shape.label}, as the first row is"
            raise row.refusal(name, f"is missing; columns seen: {_shown(row.cells)}", remedy)
    for name in row.cells:
        if name in _KNOWN and name not in first.cells and name not in shape.optional:
            raise row.refusal(name, "is in this row, but not in the first", "give all rows the same columns")
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


def _shown(columns: Collection[str]) -> str:
    names = ", ".join(repr(name[:60]) for name in list(columns)[:_COLUMNS_SHOWN]) or "none"
    return names if len(columns) <= _COLUMNS_SHOWN else f"{names} and {len(columns) - _COLUMNS_SHOWN} more"


def _misspelt(row: Row) -> str:
    """Return a hint for the first unknown column that is close to a known one that is missing."""
    missing = sorted(_KNOWN - row.cells.keys())
    hints = ((name, nearest(name[:60], missing)) for name in list(row.cells)[:_COLUMNS_SHOWN] if name not in _KNOWN)
    return next((f" ({name[:60]!r}{hint})" for name, hint in hints if hint), "")
