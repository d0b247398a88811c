"""The frozen reference of a data set: computed as the run goes, or once for all runs and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from trueup.data.batching import Batching, map_tokens
from trueup.data.order import step_indices
from trueup.data.trees import Tree
from trueup.errors import RunError
from trueup.models.forward import TokenLogps
from trueup.runtime.logps_store import LogpsStore
from trueup.train.sources import Reference
from trueup.types import TokenTrees

WINDOW = 64
"""Rows scored between two writes to the store: what a killed run loses at most, and what may be sorted by length."""


def live(score: TokenLogps) -> Reference:
    """A reference that computes: for responses that are made on the fly, or a reference that moves."""

    def logps(rows: Sequence[int], batch: TokenTrees) -> Tensor:
        return score(batch)

    return logps


def stored(store: LogpsStore) -> Reference:
    """A reference that reads: no second model in memory, no second forward pass."""

    def logps(rows: Sequence[int], batch: TokenTrees) -> Tensor:
        values = torch.from_numpy(store.read(rows)).to(batch.tokens.device)
        if values.shape != batch.target.shape:
            raise RunError(f"{store.folder}: has {len(values)} values for {len(batch.target)} response tokens")
        return values

    return logps


def fill(
    store: LogpsStore,
    trees: Sequence[Tree],
    rows: Sequence[int],
    score: TokenLogps,
    batching: Batching,
    tell: Callable[[int, int], None],
) -> int:
    """Score the rows that the store lacks and return how many those were; what is there is not computed again.

    Args:
        store: is written every ``WINDOW`` rows, so a run that is stopped loses little.
        trees: the data set.
        rows: which of them are needed.
        score: the frozen reference.
        batching: how they are cut.
        tell: hears (rows scored, rows to score).
    """
    absent = store.missing(rows)
    for start in range(0, len(absent), WINDOW):
        tell(start, len(absent))
        window = absent[start : start + WINDOW]
        values = map_tokens([trees[row] for row in window], score, batching)
        store.write(window, values.float().cpu().numpy())
    if absent:
        tell(len(absent), len(absent))
    return len(absent)


@lru_cache(maxsize=1)
def visited(steps: int, batch_size: int, size: int, seed: int) -> Sequence[int]:
    """The rows that a run of so many steps draws, in ascending order; store and first checks ask for them."""
    if steps * batch_size >= size:
        return range(size)
    return tuple(sorted({row for step in range(steps) for row in step_indices(step, batch_size, size, seed)}))
