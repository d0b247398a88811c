"""Cutting trees into forward passes, and putting what comes back in the order of the trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trueup.data.order import micro_batches
from trueup.data.trees import Layout, Tree, collate
from trueup.types import TokenTrees


@dataclass(frozen=True)
class Batching:
    """How trees become forward passes. Nothing here can change a result, only its cost.

    Attributes:
        layout: ``shared`` stores prompts once and packs rows; ``plain`` is one response a row, nothing shared.
        max_tokens: most tokens of a forward pass, padding aside.
        device: where the batches go.
    """

    layout: Layout
    max_tokens: int
    device: torch.device

    def collate(self, trees: Sequence[Tree]) -> TokenTrees:
        """One batch of all these trees, on the device."""
        return collate(trees, self.layout, packing=self.layout == "shared").to(self.device)

    def cut(self, trees: Sequence[Tree]) -> list[list[int]]:
        """Indices of the trees of each forward pass."""
        return micro_batches(trees, self.max_tokens, plain=self.layout == "plain")


def responses_of(trees: Sequence[Tree], indices: Sequence[int]) -> Tensor:
    """Numbers, in the flat order over all trees' responses, of the responses of the chosen trees."""
    first = torch.tensor([0, *(len(tree.responses) for tree in trees)]).cumsum(0).tolist()
    return torch.tensor([k for i in indices for k in range(first[i], first[i + 1])], dtype=torch.int64)


def tokens_of(trees: Sequence[Tree], indices: Sequence[int]) -> Tensor:
    """Numbers, in the flat order over all trees' response tokens, of the response tokens of the chosen trees."""
    sizes = [sum(map(len, tree.responses)) for tree in trees]
    first = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return torch.tensor([n for i in indices for n in range(first[i], first[i + 1])], dtype=torch.int64)


def map_tokens(trees: Sequence[Tree], score: Callable[[TokenTrees], Tensor], batching: Batching) -> Tensor:
    """Apply a per-token function ``[N]`` to all trees in micro-batches; the result is in the order of the trees."""
    return _gather(trees, score, batching, tokens_of)


def map_responses(trees: Sequence[Tree], score: Callable[[TokenTrees], Tensor], batching: Batching) -> Tensor:
    """Apply a per-response function ``[K]`` to all trees in micro-batches; the result is in the order of the trees."""
    return _gather(trees, score, batching, responses_of)


def _gather(
    trees: Sequence[Tree],
    score: Callable[[TokenTrees], Tensor],
    batching: Batching,
    places: Callable[[Sequence[Tree], Sequence[int]], Tensor],
) -> Tensor:
    out: Tensor | None = None
    total = len(places(trees, range(len(trees))))
    for indices in batching.cut(trees):
        part = score(batching.collate([trees[i] for i in indices]))
        if out is None:
            out = part.new_empty(total)
        out[places(trees, indices).to(part.device)] = part
    return out if out is not None else torch.zeros(0)
