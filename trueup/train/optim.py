"""The optimiser and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from trueup.config.schema import OptimSection


def make_optimizer(
    weights: Sequence[nn.Parameter], section: OptimSection, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW over these weights and its schedule over ``steps`` updates.

    Weight decay applies to matrices only: decaying norms, biases and scalars shrinks what has no scale to regularise.
    """
    groups = [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": section.weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=section.learning_rate, betas=section.betas, eps=1e-8, fused=True)
    warmup = round(section.warmup * steps)
    shape = SCHEDULES[section.schedule]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return shape((step - warmup) / max(1, steps - warmup))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: max(0.0, 1.0 - done),
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * min(1.0, done))),
}
"""Learning-rate factor as a function of the share of the run done after warm-up."""
