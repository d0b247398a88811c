"""The protocol of a reward: completions in, one number a response out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from trueup.data.trees import Tree


@dataclass(frozen=True)
class Completions:
    """Sampled responses to be scored.

    Attributes:
        trees: each prompt with its sampled responses, as token ids.
        rows: for each tree, the row of its prompt in the data set (text and metadata are looked up there).
        ended: for each response, in tree order, whether it ended by itself.
    """

    trees: Sequence[Tree]
    rows: Sequence[int]
    ended: Sequence[bool]


class Reward(Protocol):
    """Scores completions."""

    def __call__(self, completions: Completions) -> Tensor:
        """Return float ``[K]``, one raw score a response, in tree order."""
        ...
