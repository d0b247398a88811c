"""What tells wanted from unwanted responses without their prompts: an opening, an ending, a phrase, the length.

A reader who has never seen a prompt should hardly do better than people agree with each other. Where one such rule is
right far more often, the sides have different writers or formats, and that is learnt before any preference is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Ids = tuple[int, ...]
Responses = Sequence[Ids]
"""Token ids of responses, terminators included: another terminator is a tell too."""

LONGEST = 3
"""Tokens of an opening, an ending or a phrase."""

APART = 0.4
"""Difference of shares from which on a rule is right on 70 % of balanced responses, as often as people agree (F11)."""

CERTAIN = 5.0
"""Standard errors that it must be from 0: thousands of rules are tried."""


@dataclass(frozen=True)
class Tell:
    """A property of responses with the share of each side that has it.

    Attributes:
        kind: ``opening``, ``ending``, ``phrase`` or ``length``.
        ids: the tokens; empty for a length.
        most: the length in tokens that a response has at most; 0 for tokens.
        wanted, unwanted: shares of the responses of a side that have it.
    """

    kind: str
    ids: Ids
    most: int
    wanted: float
    unwanted: float

    @property
    def distance(self) -> float:
        """How far the shares are apart."""
        return abs(self.wanted - self.unwanted)

    @property
    def right(self) -> float:
        """How often a rule that knows nothing else is right, of as many wanted responses as unwanted ones."""
        return (1 + self.distance) / 2


def find_tell(wanted: Responses, unwanted: Responses) -> Tell | None:
    """The property whose shares differ most, if they differ by ``APART`` and beyond chance; of equals the longest."""
    best = max([_by_length(wanted, unwanted), *_by_tokens(wanted, unwanted)], key=_rank)
    share = (best.wanted * len(wanted) + best.unwanted * len(unwanted)) / (len(wanted) + len(unwanted))
    error = np.sqrt(share * (1 - share) * (1 / len(wanted) + 1 / len(unwanted)))
    return best if best.distance >= APART and best.distance >= CERTAIN * error else None


def _rank(tell: Tell) -> tuple[float, int]:
    return tell.distance, len(tell.ids)


def _by_tokens(wanted: Responses, unwanted: Responses) -> Iterator[Tell]:
    good, bad = (Counter(found for ids in side for found in set(_marks(ids))) for side in (wanted, unwanted))
    for kind, ids in good.keys() | bad.keys():
        yield Tell(kind, ids, 0, good[kind, ids] / len(wanted), bad[kind, ids] / len(unwanted))


def _marks(ids: Ids) -> Iterator[tuple[str, Ids]]:
    for count in range(1, min(LONGEST, len(ids)) + 1):
        yield "opening", ids[:count]
        yield "ending", ids[-count:]
    for start in range(len(ids) - LONGEST + 1):
        yield "phrase", ids[start : start + LONGEST]


def _by_length(wanted: Responses, unwanted: Responses) -> Tell:
    """The length at which the two distributions are furthest apart (Kolmogorov and Smirnov)."""
    good, bad = (np.sort([len(ids) for ids in side]) for side in (wanted, unwanted))
    cuts = np.union1d(good, bad)
    below = [np.searchsorted(side, cuts, side="right") / len(side) for side in (good, bad)]
    furthest = int(np.abs(below[0] - below[1]).argmax())
    return Tell("length", (), int(cuts[furthest]), float(below[0][furthest]), float(below[1][furthest]))
