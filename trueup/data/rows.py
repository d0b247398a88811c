"""A row of a file with its place, and typed access to its cells; every refusal names the place and the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trueup.errors import UserError

# A NUL ends strings in C code further down; a lone surrogate is no character and cannot be tokenised.
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
COLUMNS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Flaw:
    """Stands where a decoder met what JSON forbids; the decoder does not know the row, the row's check does."""

    problem: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        cells: column -> value, without nulls: a null cell is read as an absent one.
        columns: the names of all columns, null cells included, so that a refusal can say which of the two it is.
        where: the place in the file.
        number: counts the file's rows from 1.
    """

    cells: Mapping[str, Any]
    columns: tuple[str, ...]
    where: str
    number: int

    @property
    def seen(self) -> str:
        """The columns for a refusal: ``columns seen: 'prompt', 'chosen' (null)``."""
        names = [f"{name[:60]!r}{'' if name in self.cells else ' (null)'}" for name in self.columns[:COLUMNS_SHOWN]]
        more = len(self.columns) - len(names)
        return f"columns seen: {', '.join(names) or 'none'}{f' and {more} more' if more else ''}"

    def absence(self, name: str) -> str:
        """Return in what way a column without a value has none: ``is null`` or ``is missing``."""
        return "is null" if name in self.columns else "is missing"

    def refusal(self, field: str, problem: str, remedy: str) -> UserError:
        """Return, for the caller to raise, the error that this row's ``field`` is at fault."""
        return UserError(f"{self.where}: field {field!r} {problem}; {remedy}")


def make_row(value: Any, where: str, number: int) -> Row:
    """Check what holds for a row of any file format, and make it a `Row`.

    Raises:
        UserError: the value is not an object, repeats a key, or holds text that is not text.
    """
    if isinstance(value, Flaw):
        raise UserError(f"{where}: {value.problem}; correct the row")
    if not isinstance(value, dict):
        raise UserError(f'{where}: the row is {describe(value)}, not an object; write it as {{"column": value, ...}}')
    row = Row({name: cell for name, cell in value.items() if cell is not None}, tuple(value), where, number)
    for name, cell in value.items():
        _check(row, name, name)
        _check(row, name, cell)
    return row


def _check(row: Row, field: str, value: Any) -> None:
    """Refuse a flaw anywhere inside ``value``. A stack, not recursion: the depth of a stranger's file is unbounded."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Flaw):
            raise row.refusal(field, f"is wrong: {item.problem}", "correct the row")
        if isinstance(item, str) and (bad := _NOT_TEXT.search(item)):
            kind = "a NUL character" if bad[0] == "\0" else "half of a surrogate pair, which is no character"
            raise row.refusal(field, f"holds {kind} (position {bad.start()})", "remove it from the text")
        if isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            pending += item


def describe(value: Any) -> str:
    """Return what kind of JSON value this is, in words: ``text``, ``a list``, ``true or false``, ..."""
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__} value")


def text(row: Row, field: str) -> str:
    """Return the text of a required cell, as it is written; blank text is refused."""
    return checked_text(row, field, row.cells.get(field), field)


def optional_text(row: Row, field: str) -> str:
    """Return the text of a cell that may be absent or blank, or an empty string."""
    value = row.cells.get(field, "")
    return value if isinstance(value, str) and not value.strip() else text(row, field)


def checked_text(row: Row, field: str, value: Any, part: str) -> str:
    """Return ``value`` if it is text that is not blank; ``part`` names it inside its field (``responses[2]``)."""
    if not isinstance(value, str):
        raise row.refusal(field, f"must be text, but {part} is {describe(value)}", "correct or remove the row")
    if not value.strip():
        raise row.refusal(field, f"is empty ({part} has no visible text)", "fill it in or remove the row")
    return value


def number(row: Row, field: str, value: Any) -> float:
    """Return ``value`` if it is a finite number; true and false are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise row.refusal(field, f"must be a number, but is {describe(value)}", "correct or remove the row")
    if not -1e300 < value < 1e300:  # also false for NaN, and keeps whole numbers within the range of floats
        raise row.refusal(field, f"must be a finite number below 1e300, but is {str(value)[:20]}", "correct the row")
    return float(value)
