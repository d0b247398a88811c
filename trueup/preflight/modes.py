"""Training and evaluation mode for a moment, module by module, and weights that come back bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Put a module in training or evaluation mode; every part of it returns to the mode it was in."""
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, was_training in before:
            part.training = was_training


@contextmanager
def moved(leaves: Sequence[nn.Parameter], gradients: Sequence[Tensor | None], step: float) -> Iterator[None]:
    """Take ``leaves`` a step along their negative gradients, and put them back, the very bits."""
    saved = [leaf.detach().clone() for leaf in leaves]
    try:
        with torch.no_grad():
            for leaf, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    leaf.sub_(gradient.to(leaf.dtype), alpha=step)
        yield
    finally:
        with torch.no_grad():
            for leaf, value in zip(leaves, saved, strict=True):
                leaf.copy_(value)
