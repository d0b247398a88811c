"""What the readers hand on: prompts, responses and judgements as text, each with its place in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
class Loaded(Generic[T]):
    """The records of one file, and what a reader of the numbers must know about how they came to be.

    Attributes:
        records: in the order of the file.
        shape: human name of the recognised shape.
        dropped: reason -> number of rows left out; empty when every row is in ``records``.
        unused: columns that were seen and ignored, in the order of first sight.
        path: the file, as given.
        fingerprint: SHA-256 of the file's bytes, in hexadecimal.
    """

    records: tuple[T, ...]
    shape: str
    dropped: Mapping[str, int]
    unused: tuple[str, ...]
    path: str
    fingerprint: str
