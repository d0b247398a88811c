"""How far an update has moved the weights, seen on a few of them: what no setting and no gradient norm can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TENSORS, ENTRIES = 16, 256
"""Tensors that are looked at, spread over the model, and entries of each: a few thousand weights, whatever its size."""

LOW_BITS = 0xFFFF
"""What a float32 number has beyond a bfloat16 one; a number in use has all of them 0 once in 65536."""


@dataclass(frozen=True)
class Moving:
    """Weights that have a gradient, before an update.

    Attributes:
        sources: the tensors that were chosen.
        before: ``[M]``, the values of some of their entries.
        pulled: bool ``[M]``, whether the gradient of an entry is other than 0.
    """

    sources: Sequence[Tensor]
    before: Tensor
    pulled: Tensor


@torch.no_grad()
def sample_weights(weights: Sequence[Tensor]) -> Moving | None:
    """Remember some weights before an update; None where none has a gradient."""
    having = [weight for weight in weights if weight.grad is not None]
    if not having:
        return None
    chosen = having[:: -(-len(having) // TENSORS)]
    gradients = [weight.grad for weight in chosen if weight.grad is not None]
    return Moving(chosen, _entries(chosen), _entries(gradients) != 0)


@torch.no_grad()
def describe_move(moving: Moving, rate: float) -> Mapping[str, float]:
    """Return the metrics ``update/size`` and ``update/coarse`` of docs/metrics.md, as far as there is one to tell.

    Args:
        moving: what was sampled before the update.
        rate: the learning rate of the update.
    """
    after = _entries(moving.sources)
    pulled = moving.pulled
    coarse = (after.view(torch.int32) & LOW_BITS == 0) & pulled
    squares = torch.where(pulled, after - moving.before, 0.0).square()
    count, total, rounded = torch.stack([pulled.sum(), squares.sum(), coarse.sum()]).tolist()
    if not count or not rate:
        return {}
    size = {"update/size": (total / count) ** 0.5 / rate}
    in_float32 = all(weight.dtype == torch.float32 for weight in moving.sources)
    return {**size, "update/coarse": rounded / count} if in_float32 else size


def _entries(tensors: Sequence[Tensor]) -> Tensor:
    """Evenly spaced entries of each, one after another, in float32; a copy."""
    parts = []
    for tensor in tensors:
        # An odd stride: one of a matrix's width would see a single column.
        stride = (tensor.numel() // ENTRIES) | 1
        parts.append(tensor.reshape(-1)[: stride * ENTRIES : stride])
    return torch.cat(parts).float()
