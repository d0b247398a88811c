"""What the readers hand on: prompts, responses and judgements as text, each with its place in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialogue; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


Prompt: TypeAlias = tuple[Message, ...]
"""One turn or more, the last of them the user's. A prompt that is a plain string is one user turn."""


@dataclass(frozen=True, slots=True)
class Example:
    """A response to imitate.

    ``where`` is the row's place, here and in the other records: ``file:line`` (JSONL, CSV, TSV and text, lines from 1),
    ``file[index]`` (JSON, from 0) or ``file row N`` (Parquet and Arrow, from 1).
    """

    prompt: Prompt
    response: str
    where: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two different responses to one prompt, one preferred.

    ``margin`` is by how much, in the file's own score units (chosen - rejected); None where the file does not say.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    where: str
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A response with a thumb: ``label`` is True for wanted, False for unwanted."""

    prompt: Prompt
    response: str
    label: bool
    where: str


@dataclass(frozen=True, slots=True)
class PromptOnly:
    """A prompt to be answered.

    ``id`` is the row's ``id`` column, else the row's number from 1; it is unique in the file. ``meta`` keeps the
    columns that did not make the prompt (a family, an expected answer).
    """

    prompt: Prompt
    where: str
    id: str
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that is left out, and counted under ``reason``."""

    reason: str


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """What a file holds, row by row, and what a reader of the numbers must know about how it came to be.

    Nothing of the file is in memory: a loop over ``rows`` reads it, and another loop reads it again. What is wrong
    with a row is refused when the loop comes to it. ``whole`` reads and checks all rows at once.

    Attributes:
        rows: every row in the order of the file, from number 1: its record, or why it is left out.
        shape: human name of the recognised shape.
        path: the file, as given.
        fingerprint: SHA-256 of the file's bytes, in hexadecimal.
        identity: everything that the rows are a function of (bytes, kind of file, reader, limit); empty for rows that
            are no file's.
        ignored: columns that were met so far and that nothing uses, in the order of first sight.
    """

    rows: Iterable[T | Dropped]
    shape: str
    path: str
    fingerprint: str
    identity: str = ""
    ignored: Mapping[str, None] = field(default_factory=dict)

    def whole(self) -> Loaded[T]:
        """The same with all rows read, checked and held in memory: for files that are small."""
        return replace(self, rows=tuple(self.rows))

    def pick(self, numbers: Iterable[int]) -> list[T]:
        """The records of the rows with these numbers, in the order of the file."""
        wanted = set(map(int, numbers))
        return [row for number, row in enumerate(self.rows, 1) if number in wanted and not isinstance(row, Dropped)]

    @cached_property
    def records(self) -> tuple[T, ...]:
        """All records at once, in memory from then on: for files that are small."""
        return tuple(row for row in self.rows if not isinstance(row, Dropped))

    @cached_property
    def dropped(self) -> Mapping[str, int]:
        """Reason -> number of rows left out; empty when every row is a record. Reads all rows."""
        return dict(Counter(row.reason for row in self.rows if isinstance(row, Dropped)))

    @cached_property
    def unused(self) -> tuple[str, ...]:
        """Columns that nothing uses, in the order of first sight. Reads all rows."""
        for _ in self.rows:
            pass
        return tuple(self.ignored)
