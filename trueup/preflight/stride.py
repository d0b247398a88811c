"""How far a tiny step goes: far enough to be seen in float32, near enough to be straight."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from trueup.preflight.slope import Slope

FALL = 1e-3
"""The fall of the loss that a step aims at, as a share of the loss (of 0.1 where the loss is smaller)."""
MOST = 1e-3
"""The longest step, as a share of the norm of the weights."""


def stride(leaves: Sequence[nn.Parameter], slope: Slope) -> float:
    """What to multiply the gradient with."""
    weights = math.sqrt(sum(float(leaf.detach().double().square().sum()) for leaf in leaves))
    return min(FALL * max(abs(slope.loss), 0.1) / slope.norm**2, MOST * max(weights, 1.0) / slope.norm)
