"""What a run will need: weights, gradients and moments by counting, activations by trying a few tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trueup.data.batching import Batching
from trueup.data.trees import Tree
from trueup.models.forward import hidden_states, token_scores
from trueup.models.scoring import response_scores


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step, by what takes them."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it; libraries and the data are not in it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(model: nn.Module, tree: Tree, batching: Batching, tokens: int) -> Memory:
    """Estimate the peak of a step with AdamW.

    Activations are what the forward pass of one tree saves for its backward pass, scaled to the tokens of a
    forward pass: nearly all of them grow with tokens.

    Args:
        model: as it will be trained.
        tree: any tree of the data.
        batching: how it is laid out.
        tokens: of the largest forward pass.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    rounded = sum(p.numel() for p in trained if p.dtype in (torch.bfloat16, torch.float16))
    moments = sum(8 * p.numel() for p in trained)
    tried = tree.plain_size if batching.layout == "plain" else tree.size
    return Memory(
        weights=sum(p.numel() * p.element_size() for p in model.parameters()) + 4 * rounded,
        gradients=sum(p.numel() * p.element_size() for p in trained) + 4 * rounded,
        optimizer=moments,
        activations=_saved(model, lambda: _forward(model, tree, batching)) * tokens // tried,
    )


def _forward(model: Any, tree: Tree, batching: Batching) -> Tensor:
    batch = batching.collate([tree])
    if hasattr(model, "score") or not tree.responses:
        return hidden_states(model, batch)
    if model.get_output_embeddings() is None:  # an encoder, which scores whole rows
        return response_scores(model, batch)
    return token_scores(model, batch).logps


def _saved(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of distinct storage that a forward pass keeps for its backward pass, weights aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(kept.values())
