"""The order in which a data set is visited, and how a step's trees are cut into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from trueup.data.store import plain_sizes_of, sizes_of
from trueup.data.trees import Tree
from trueup.runtime.seeding import generator


def step_indices(step: int, batch_size: int, size: int, seed: int) -> list[int]:
    """Return the rows of optimiser step ``step`` (0-based): a pure function, so a resumed run needs no iterator state.

    The stream is a fresh permutation of all rows for every epoch, end to end; a batch may straddle two epochs, so
    every row is visited once an epoch and no batch is short.
    """
    start, out = step * batch_size, []
    while len(out) < batch_size:
        epoch, offset = divmod(start + len(out), size)
        out += _order(size, seed, epoch)[offset : offset + batch_size - len(out)].tolist()
    return out


# A step needs one epoch or two neighbours; each takes eight bytes a row.
@lru_cache(maxsize=2)
def _order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """All rows in the order in which an epoch visits them."""
    return torch.randperm(size, generator=generator(seed, "order", epoch))


def micro_batches(trees: Sequence[Tree], max_tokens: int, plain: bool = False) -> list[list[int]]:
    """Cut a step's trees into micro-batches of at most ``max_tokens`` tokens, longest trees first.

    Neighbours in length share a micro-batch, so little is padded; a tree longer than the limit is alone in its own.
    The cut cannot change the update: the step divides by counts over the whole step.
    """
    sizes = plain_sizes_of(trees).tolist() if plain else sizes_of(trees).tolist()
    out: list[list[int]] = []
    used = 0
    for index in np.argsort(-sizes_of(trees), kind="stable").tolist():
        size = sizes[index]
        if not out or used + size > max_tokens:
            out.append([])
            used = 0
        out[-1].append(index)
        used += size
    return out
