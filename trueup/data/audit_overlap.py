"""Prompts that training and an evaluation have in common."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trueup.data.audit_sheet import tally
from trueup.data.records import Prompt

LONG, SHORT = 13, 5
"""Words in a shared passage (Brown et al. 2020, appendix C), and in the pieces that nearness is counted in."""
NEAR = 0.8
"""Jaccard similarity of the sets of pieces from which on two prompts are near-duplicates."""
COMMON = 10
"""A passage in more training prompts than this, and in more than 1 % of them, is boilerplate and counts for nothing."""

Gram = tuple[str, ...]


@dataclass(frozen=True)
class _Index:
    """Passages that occur on both sides.

    Attributes:
        rows: passage -> the training rows that have it, boilerplate left out.
        boilerplate: passages left out.
        sizes: training row -> how many passages it has, boilerplate left out.
    """

    rows: dict[Gram, list[int]]
    boilerplate: set[Gram]
    sizes: Counter[int]


def overlap(
    training: Sequence[Prompt], places: Sequence[str], evaluation: Sequence[Prompt], evaluation_places: Sequence[str]
) -> dict[str, Any]:
    """Count evaluation prompts that are in training: the same, nearly the same, or with a passage in common.

    A prompt is the words of its user turns, without case and punctuation; system turns are left out, for all rows may
    share one. Each evaluation prompt is counted once, under the first of ``exact``, ``near`` and ``passage`` it meets.
    ``boilerplate`` is the number of 13-word passages that both have and that were not counted because training repeats
    them.
    """
    known, asked = [_words(prompt) for prompt in training], [_words(prompt) for prompt in evaluation]
    first: dict[Gram, int] = {}
    for row, words in enumerate(known):
        first.setdefault(words, row)
    long, short = (_index(known, list(first.values()), asked, size) for size in (LONG, SHORT))
    found: dict[str, list[str]] = {"exact": [], "near": [], "passage": []}
    for words, place in zip(asked, evaluation_places, strict=True):
        kind, row = "exact", first.get(words)
        if row is None:
            kind, row = "near", _nearest(words, short)
        if row is None:
            kind, row = "passage", next((long.rows[gram][0] for gram in _grams(words, LONG) if gram in long.rows), None)
        if row is not None:
            found[kind].append(f"{place} (as {places[row]})")
    total = len(evaluation)
    counts = {name: tally(where, total) for name, where in found.items()}
    return {"prompts": total, "boilerplate": len(long.boilerplate)} | counts


def _words(prompt: Prompt) -> Gram:
    text = "\n".join(turn.content for turn in prompt if turn.role == "user").casefold()
    return tuple(re.findall(r"\w+", text)) or (text.strip(),)


def _grams(words: Gram, size: int) -> set[Gram]:
    return {words[i : i + size] for i in range(len(words) - size + 1)}


def _index(known: Sequence[Gram], rows: Sequence[int], asked: Sequence[Gram], size: int) -> _Index:
    """Index the passages of the training rows that the evaluation has too: memory grows with the evaluation alone."""
    wanted = {gram for words in asked for gram in _grams(words, size)}
    index: dict[Gram, list[int]] = defaultdict(list)
    sizes: Counter[int] = Counter()
    for row in rows:
        grams = _grams(known[row], size)
        sizes[row] = len(grams)
        for gram in grams & wanted:
            index[gram].append(row)
    limit = max(COMMON, 0.01 * len(rows))
    boilerplate = {gram for gram, holders in index.items() if len(holders) > limit}
    for gram in boilerplate:
        sizes.subtract(index.pop(gram))
    return _Index(dict(index), boilerplate, sizes)


def _nearest(words: Gram, index: _Index) -> int | None:
    """The training row whose passages are nearest, if near enough."""
    own = _grams(words, SHORT) - index.boilerplate
    shared = Counter(row for gram in own for row in index.rows.get(gram, ()))
    near = {row: count / (len(own) + index.sizes[row] - count) for row, count in shared.items()}
    best = max(near, key=near.__getitem__, default=None)
    return best if best is not None and near[best] >= NEAR else None
