"""Cutting trees into forward passes, and putting what comes back in the order of the trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trueup.data.order import micro_batches
from trueup.data.store import response_tokens_before, responses_before
from trueup.data.trees import Layout, Tree, collate
from trueup.types import TokenTrees


@dataclass(frozen=True)
class Batching:
    """How trees become forward passes. Nothing here can change a result, only its cost.

    Attributes:
        layout: see ``Layout``.
        max_tokens: most tokens of a forward pass, padding aside.
        device: where the batches go.
    """

    layout: Layout
    max_tokens: int
    device: torch.device

    def collate(self, trees: Sequence[Tree]) -> TokenTrees:
        """One batch of all these trees, on the device."""
        return collate(trees, self.layout, packing=self.layout != "plain").to(self.device)

    def cut(self, trees: Sequence[Tree]) -> list[list[int]]:
        """Indices of the trees of each forward pass."""
        return micro_batches(trees, self.max_tokens, plain=self.layout == "plain")


def responses_of(trees: Sequence[Tree], indices: Sequence[int]) -> Tensor:
    """Numbers, in the flat order over all trees' responses, of the responses of the chosen trees."""
    return _numbers(responses_before(trees), indices)


def tokens_of(trees: Sequence[Tree], indices: Sequence[int]) -> Tensor:
    """Numbers, in the flat order over all trees' response tokens, of the response tokens of the chosen trees."""
    return _numbers(response_tokens_before(trees), indices)


def _numbers(before: np.ndarray, indices: Sequence[int]) -> Tensor:
    """Every number from ``before[i]`` to ``before[i + 1]``, for each i in turn."""
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *(np.arange(*before[i : i + 2]) for i in indices)]))


def map_tokens(trees: Sequence[Tree], score: Callable[[TokenTrees], Tensor], batching: Batching) -> Tensor:
    """Apply a per-token function ``[N]`` to all trees in micro-batches; the result is in the order of the trees."""
    return _gather(trees, score, batching, response_tokens_before(trees))


def map_responses(trees: Sequence[Tree], score: Callable[[TokenTrees], Tensor], batching: Batching) -> Tensor:
    """Apply a per-response function ``[K]`` to all trees in micro-batches; the result is in the order of the trees."""
    return _gather(trees, score, batching, responses_before(trees))


def _gather(
    trees: Sequence[Tree], score: Callable[[TokenTrees], Tensor], batching: Batching, before: np.ndarray
) -> Tensor:
    out: Tensor | None = None
    for indices in batching.cut(trees):
        part = score(batching.collate([trees[i] for i in indices]))
        if out is None:
            out = part.new_empty(int(before[-1]))
        out[_numbers(before, indices).to(part.device)] = part
    return out if out is not None else torch.zeros(0)
