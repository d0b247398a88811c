"""Records become token trees: lengths are checked, what is left out is counted, nothing is cut in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trueup.data.records import Example, Loaded, Message, Pair, PromptOnly
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.errors import UserError


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
class EncodedSet:
    """A data set as token trees.

    Attributes:
        trees: one tree a kept record, in file order.
        rows: for each tree, the index of its record in the file's records.
        dropped: reason -> number of records left out, the reader's reasons included.
        path: the file.
        fingerprint: sha256 of the file.
        shape: the recognised shape of the file.
    """

    trees: tuple[Tree, ...]
    rows: tuple[int, ...]
    dropped: Mapping[str, int]
    path: str
    fingerprint: str
    shape: str

    def __len__(self) -> int:
        return len(self.trees)

    def describe(self) -> str:
        """One line for people: what was read, how long it is, what was left out."""
        sizes = sorted(tree.size for tree in self.trees)
        lost = "; ".join(f"{count} dropped: {reason}" for reason, count in self.dropped.items()) or "none dropped"
        return (
            f"{self.path}: {len(self)} rows as {self.shape}; tokens median {sizes[len(sizes) // 2]}, "
            f"longest {sizes[-1]}; {lost}"
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
    return _encode(loaded, encoder, bounds, lambda record: (encoder.response(record.response),))


def encode_pairs(loaded: Loaded[Pair], encoder: Encoder, bounds: Bounds) -> EncodedSet:
    """Trees of two responses, chosen first (preferences, reward models).

    Pairs whose token ids are identical although their texts differ carry no gradient: dropped with a count.
    """
    return _encode(loaded, encoder, bounds, lambda r: (encoder.response(r.chosen), encoder.response(r.rejected)))


def encode_prompts(loaded: Loaded[PromptOnly], encoder: Encoder, bounds: Bounds) -> EncodedSet:
    """Trees without responses: prompts to sample from."""
    return _encode(loaded, encoder, bounds, lambda record: ())


def _encode(
    loaded: Loaded[Any], encoder: Encoder, bounds: Bounds, responses: Callable[[Any], tuple[tuple[int, ...], ...]]
) -> EncodedSet:
    trees, rows, dropped = [], [], Counter(loaded.dropped)
    for row, record in enumerate(loaded.records):
        tree = Tree(encoder.prompt(record.prompt), responses(record))
        _refuse_hopeless(tree, record, bounds)
        reason = _reason_to_drop(tree, bounds)
        if reason:
            dropped[reason] += 1
            continue
        trees.append(tree)
        rows.append(row)
    if not trees:
        raise UserError(f"{loaded.path}: no row is left to train on ({_counts(dropped)}); raise data.max_length?")
    return EncodedSet(tuple(trees), tuple(rows), dict(dropped), loaded.path, loaded.fingerprint, loaded.shape)


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


def read_back(trees: Sequence[Tree], texts: Sequence[Sequence[str]], encoder: Encoder) -> list[int]:
    """Return the indices of trees whose masked tokens do not decode to exactly the response text and one terminator."""
    wrong = []
    for index, (tree, expected) in enumerate(zip(trees, texts, strict=True)):
        for ids, text in zip(tree.responses, expected, strict=True):
            if ids[-1:] != (encoder.terminator,) or encoder.terminator in ids[:-1] or encoder.text(ids) != text:
                wrong.append(index)
                break
    return wrong
