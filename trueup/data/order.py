"""The order in which a data set is visited, and how a step's trees are cut into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence

from trueup.data.trees import Tree
from trueup.runtime.seeding import generator


def step_indices(step: int, batch_size: int, size: int, seed: int) -> list[int]:
    """Return the rows of optimiser step ``step`` (0-based): a pure function, so a resumed run needs no iterator state.

    The stream is a fresh permutation of all rows for every epoch, end to end; a batch may straddle two epochs, so
    every row is visited once an epoch and no batch is short.
    """
    import torch

    start, out = step * batch_size, []
    while len(out) < batch_size:
        epoch, offset = divmod(start + len(out), size)
        order = torch.randperm(size, generator=generator(seed, "order", epoch)).tolist()
        out += order[offset : offset + batch_size - len(out)]
    return out


def micro_batches(trees: Sequence[Tree], max_tokens: int, plain: bool = False) -> list[list[int]]:
    """Cut a step's trees into micro-batches of at most ``max_tokens`` tokens, longest trees first.

    Neighbours in length share a micro-batch, so little is padded; a tree longer than the limit is alone in its own.
    The cut cannot change the update: the step divides by counts over the whole step.
    """
    order = sorted(range(len(trees)), key=lambda i: (-trees[i].size, i))
    out: list[list[int]] = []
    used = 0
    for index in order:
        size = trees[index].plain_size if plain else trees[index].size
        if not out or used + size > max_tokens:
            out.append([])
            used = 0
        out[-1].append(index)
        used += size
    return out
