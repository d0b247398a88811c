"""Records become token trees: lengths are checked, what is left out is counted, nothing is cut in silence.

The records are read, encoded and written a few hundred at a time, so memory does not grow with the data set. What was
encoded once is found again (`data/cache`) for as long as file, tokenizer, template and bounds are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trueup.data.cache import kept_or_made
from trueup.data.records import Dropped, Example, Judged, Loaded, Message, Pair, PromptOnly
from trueup.data.store import MappedTrees, TreeWriter
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.errors import UserError

FORMAT = 1
"""To be raised when the same file, tokenizer and bounds would give other trees, facts or columns than before."""

_AT_ONCE = 256
"""Rows that are read and encoded together."""

_PLACES_TOLD = 10


class Record(Protocol):
    """What encoding needs of a record: its prompt and where it was read."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns before the answer."""
        ...

    @property
    def where(self) -> str:
        """File and line."""
        ...


@dataclass(frozen=True)
class ReadBack:
    """The check that the tokens under the mask are the response's text and one terminator.

    Attributes:
        checked: rows that were decoded again.
        wrong: those of them with a response that did not give its own text.
        places: file and line of the first of these.
    """

    checked: int
    wrong: int
    places: tuple[str, ...]


@dataclass(frozen=True)
class EncodedSet:
    """A data set as token trees.

    Attributes:
        trees: one tree a kept record, in file order; they lie in a mapped file.
        dropped: reason -> number of records left out, the reader's reasons included.
        read_back: whether responses decode to their own text.
        path: the file.
        fingerprint: sha256 of the file.
        shape: the recognised shape of the file.
        note: why the trees could not be kept for the next run; empty otherwise.
    """

    trees: MappedTrees
    dropped: Mapping[str, int]
    read_back: ReadBack
    path: str
    fingerprint: str
    shape: str
    note: str = ""

    def __len__(self) -> int:
        return len(self.trees)

    @property
    def digest(self) -> str:
        """sha256 over token ids and structure: what is trained on, whatever file and tokenizer it came from."""
        return self.trees.digest

    @property
    def row_numbers(self) -> np.ndarray:
        """i64 ``[n]``: for each tree, the number of its row in the file, from 1; see `Loaded.pick`."""
        return self.trees.row_numbers

    def describe(self) -> str:
        """One line for people: what was read, how long it is, what was left out."""
        sizes, middle = self.trees.sizes, len(self) // 2
        rows = "row" if len(self) == 1 else "rows"
        lost = "; ".join(f"{count} dropped: {reason}" for reason, count in self.dropped.items()) or "none dropped"
        return (
            f"{self.path}: {len(self)} {rows} as {self.shape}; tokens median {np.partition(sizes, middle)[middle]}, "
            f"longest {sizes.max()}; {lost}" + (f"; {self.note}" if self.note else "")
        )


@dataclass(frozen=True)
class Bounds:
    """How long a sequence (prompt and its longest response) may be.

    Attributes:
        context: positions the model has; a prompt that leaves no room in it is an error in the input.
        max_length: rows over this are dropped with a count; None = the context, and over-long prompts are refused.
        extra: tokens that must still fit after a prompt (what a rollout will sample).
    """

    context: int
    max_length: int | None = None
    extra: int = 0

    @property
    def limit(self) -> int:
        """The length in force."""
        return min(self.context, self.max_length or self.context)


def encode_examples(loaded: Loaded[Example], encoder: Encoder, bounds: Bounds) -> EncodedSet:
    """Trees of one response (SFT)."""
    return _encode(loaded, encoder, bounds, ("response",))


def encode_judged(loaded: Loaded[Judged], encoder: Encoder, bounds: Bounds) -> EncodedSet:
    """Trees of one response (KTO, BCO); `EncodedSet.row_numbers` says whose label is whose."""
    return _encode(loaded, encoder, bounds, ("response",))


def encode_pairs(loaded: Loaded[Pair], encoder: Encoder, bounds: Bounds) -> EncodedSet:
    """Trees of two responses, chosen first (preferences, reward models).

    Pairs whose token ids are identical although their texts differ carry no gradient: dropped with a count.
    """
    return _encode(loaded, encoder, bounds, ("chosen", "rejected"))


def encode_prompts(loaded: Loaded[PromptOnly], encoder: Encoder, bounds: Bounds) -> EncodedSet:
    """Trees without responses: prompts to sample from."""
    return _encode(loaded, encoder, bounds, ())


_Texts = Callable[[Any], tuple[str, ...]]
"""Record -> the texts of its responses."""


def _encode(loaded: Loaded[Any], encoder: Encoder, bounds: Bounds, responses: Sequence[str]) -> EncodedSet:
    """Encode the prompts and the fields named in ``responses``, or find what was made of them before."""
    key = {
        "format": FORMAT,
        "rows": loaded.identity,
        "responses": list(responses),
        "tokenizer": encoder.fingerprint,
        "terminator": encoder.terminator,
        "bounds": asdict(bounds),
    }

    def texts(record: Any) -> tuple[str, ...]:
        return tuple(getattr(record, name) for name in responses)

    def write(path: Path) -> None:
        writer = TreeWriter(path)
        writer.close(_write_all(writer, loaded, encoder, bounds, texts))

    trees, note = kept_or_made(key if loaded.identity else None, write)
    # Places are kept without the file's name: the same content may lie elsewhere the next time.
    found = trees.facts["read_back"]
    places = tuple(f"{loaded.path}{place}" for place in found["places"])
    read_back = ReadBack(found["checked"], found["wrong"], places)
    dropped = trees.facts["dropped"]
    return EncodedSet(trees, dropped, read_back, loaded.path, loaded.fingerprint, loaded.shape, note)


def _write_all(
    writer: TreeWriter, loaded: Loaded[Any], encoder: Encoder, bounds: Bounds, texts: _Texts
) -> dict[str, Any]:
    """Write the tree of every record that is kept; returns the counts."""
    dropped: Counter[str] = Counter()
    kept, wrong, places = 0, 0, []
    for rows in _chunks(enumerate(loaded.rows, 1)):
        dropped.update(row.reason for _, row in rows if isinstance(row, Dropped))
        records = [(number, row) for number, row in rows if not isinstance(row, Dropped)]
        for (number, record), tree in zip(records, _trees([r for _, r in records], encoder, texts), strict=True):
            _refuse_hopeless(tree, record, bounds)
            if reason := _reason_to_drop(tree, bounds):
                dropped[reason] += 1
                continue
            kept += 1
            writer.add(number, tree)
            if not _reads_back(tree, texts(record), encoder):
                wrong += 1
                places += [record.where.removeprefix(loaded.path)] if wrong <= _PLACES_TOLD else []
    if not kept:
        raise UserError(f"{loaded.path}: no row is left to train on ({_counts(dropped)}); raise data.max_length?")
    return {"dropped": dropped, "read_back": {"checked": kept, "wrong": wrong, "places": places}}


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, _AT_ONCE)):
        yield chunk


def _trees(records: Sequence[Any], encoder: Encoder, texts: _Texts) -> Iterator[Tree]:
    prompts = encoder.prompts([record.prompt for record in records])
    responses = iter(encoder.responses([text for record in records for text in texts(record)]))
    for record, prompt in zip(records, prompts, strict=True):
        yield Tree(prompt, tuple(islice(responses, len(texts(record)))))


def _refuse_hopeless(tree: Tree, record: Record, bounds: Bounds) -> None:
    room = bounds.context - max(1, bounds.extra)
    if bounds.max_length is None and len(tree.prompt) > room:
        raise UserError(
            f"{record.where}: the prompt has {len(tree.prompt)} tokens; the model's context of {bounds.context} leaves "
            f"room for {room}. Shorten it, or set --data.max_length to drop rows that are too long"
        )


def _reason_to_drop(tree: Tree, bounds: Bounds) -> str | None:
    longest = max(map(len, tree.responses), default=bounds.extra)
    if len(tree.prompt) + longest > bounds.limit:
        return f"longer than {bounds.limit} tokens"
    if len(tree.responses) == 2 and tree.responses[0] == tree.responses[1]:
        return "identical chosen and rejected tokens"
    return None


def _counts(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "the file has none"


def _reads_back(tree: Tree, texts: Sequence[str], encoder: Encoder) -> bool:
    """Do the trained tokens decode to exactly the response's text, and is the last and only terminator among them?"""
    return all(
        ids[-1] == encoder.terminator and encoder.terminator not in ids[:-1] and encoder.text(ids) == text
        for ids, text in zip(tree.responses, texts, strict=True)
    )
