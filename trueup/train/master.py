"""Float32 master weights for models in bfloat16.

A bfloat16 number has 8 significant bits: an update smaller than 2^-9 of the weight is rounded away. AdamW moves a
weight by about the learning rate, so at the rates of preference tuning (1e-6) nearly every update of a bfloat16
weight is lost, without any sign but a loss that does not move. Micikevicius et al. 2017, arXiv 1710.03740, Section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class MasterWeights:
    """Float32 copies that the optimiser updates, and the model's own weights, which follow them.

    ``collect`` adds the gradients of a micro-batch up in float32; ``spread`` writes the updated masters back.
    """

    def __init__(self, model: nn.Module) -> None:
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.masters = [_master(p) for p in self.weights]

    def collect(self) -> None:
        """Move the gradients of the model's weights to the masters, in float32."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            if master is weight or weight.grad is None:
                continue
            grad = weight.grad.float()
            master.grad = grad if master.grad is None else master.grad.add_(grad)
            weight.grad = None

    @torch.no_grad()
    def spread(self) -> None:
        """Round the masters to the model's weights."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            if master is not weight:
                weight.copy_(master)

    def state(self) -> list[Tensor]:
        """What a resumed run needs: the masters of rounded weights."""
        return [m.detach() for w, m in zip(self.weights, self.masters, strict=True) if m is not w]

    @torch.no_grad()
    def restore(self, saved: list[Tensor]) -> None:
        """Continue with saved masters."""
        own = [m for w, m in zip(self.weights, self.masters, strict=True) if m is not w]
        for master, value in zip(own, saved, strict=True):
            master.copy_(value)


def _master(weight: nn.Parameter) -> nn.Parameter:
    """A float32 copy of a weight of lower precision; the weight itself where nothing would be rounded away."""
    if weight.dtype not in (torch.bfloat16, torch.float16):
        return weight
    return nn.Parameter(weight.detach().float())


@torch.no_grad()
def lost_share(weights: Iterable[Tensor], rate: float) -> float:
    """Return the share of weights that an update of size ``rate`` would leave as they are, by trying it.

    AdamW's first updates have that size for every weight with a gradient.
    """
    lost, total = 0, 0
    for weight in weights:
        moved = (weight.float() - rate).to(weight.dtype)
        lost += int((moved == weight).sum())
        total += weight.numel()
    return lost / max(1, total)
