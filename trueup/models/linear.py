"""Linear layers whose products go where `ops/products` sends them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trueup.ops import products


class Linear(nn.Linear):
    """PyTorch's linear layer, computed by `ops/products`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input @ weight.T + bias``."""
        return products.linear(input, self.weight, self.bias)


def quicken(model: Any) -> Any:
    """Make every plain linear layer of a model such a one, in place; returns the model.

    Only the class of a layer changes: weights, hooks, names and what is saved stay as they are. Layers of other
    classes (quantised ones, adapters around a layer) are left alone.
    """
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear
    return model
