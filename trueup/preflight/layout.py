"""Proof, on real data, that the shared layout computes what the plain one does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from trueup.data.batching import Batching
from trueup.data.store import sizes_of
from trueup.data.trees import Layout, Tree
from trueup.models.attention import WORTH_A_CALL, takes_flat
from trueup.models.forward import hidden_states, token_scores

Probe = tuple[Sequence[Tensor], Sequence[Tensor]]
"""What a layout computes: values and gradients."""

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9, torch.bfloat16: 5e-2}
"""Largest relative difference of log-probabilities and gradients that rounding explains, by dtype of the weights."""


@dataclass(frozen=True)
class LayoutProof:
    """Which layout to use and why, with the differences that were measured (relative; None = the forward failed)."""

    layout: Layout
    message: str
    value_difference: float | None
    gradient_difference: float | None


def prove_layout(model: nn.Module, trees: Sequence[Tree], batching: Batching, sample: int = 4) -> LayoutProof:
    """Compare the sharing layouts with the plain one on a few trees, values and gradients; take the first that agrees.

    Short trees are chosen, so that the check costs little whatever the data. Models that take no block mask (position
    schemes that cannot restart, state-space mixers) fail here and get the plain layout.
    """
    few = list(trees[:sample])
    if len(trees) > 4 * sample:
        few = [trees[i] for i in np.argsort(sizes_of(trees), kind="stable")[: 4 * sample : 4].tolist()]
    if not any(tree.responses for tree in few):
        few = [Tree(tree.prompt, (tree.prompt[-1:], tree.prompt[:2])) for tree in few]
    tolerance = TOLERANCE[next(model.parameters()).dtype]
    plain = _probe(model, few, replace(batching, layout="plain"))
    # Small trees would be attended to as a whole; long ones in training are not.
    token = WORTH_A_CALL.set(-(1 << 40))
    try:
        return _prove(model, few, batching, plain, tolerance)
    finally:
        WORTH_A_CALL.reset(token)


def _prove(model: nn.Module, few: Sequence[Tree], batching: Batching, plain: Probe, tolerance: float) -> LayoutProof:
    flat: tuple[Layout, ...] = ("flat",) if takes_flat(model.config) else ()
    proof = LayoutProof("plain", "layout: plain", None, None)
    for layout in (*flat, "shared"):
        proof = _compare(model, few, replace(batching, layout=layout), plain, tolerance)
        if proof.layout != "plain":
            return proof
    return proof


def _compare(
    model: nn.Module, trees: Sequence[Tree], batching: Batching, plain: Probe, tolerance: float
) -> LayoutProof:
    layout = batching.layout
    try:
        values, gradients = (_relative(a, b) for a, b in zip(plain, _probe(model, trees, batching), strict=True))
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        reason = str(error).split("\n")[0]
        return LayoutProof("plain", f"layout: plain (the model takes no block mask: {reason})", None, None)
    # Written so that NaN falls on the plain side.
    if values <= tolerance and gradients <= tolerance:
        message = f"layout: {layout} (equals plain: log-probs to {values:.0e}, gradients to {gradients:.0e})"
        return LayoutProof(layout, message, values, gradients)
    message = f"layout: plain ({layout} differs: log-probs by {values:.1e}, gradients by {gradients:.1e})"
    return LayoutProof("plain", message, values, gradients)


def _probe(model: nn.Module, trees: Sequence[Tree], batching: Batching) -> Probe:
    """Log-probabilities (or, without a language-model head, hidden states) and the gradient of their sum."""
    batch = batching.collate(trees)
    was_training = model.training
    model.eval()
    if getattr(model, "score", None) is None:
        value = token_scores(model, batch).logps
    else:
        value = hidden_states(model, batch)[batch.source].flatten()
    weights = torch.linspace(0.5, 1.5, len(value), dtype=value.dtype, device=value.device)
    leaves = [p for p in model.parameters() if p.requires_grad]
    # Without anything to train there is no gradient to compare; that nothing trains is for a check to say.
    gradients = torch.autograd.grad((value * weights).sum(), leaves, allow_unused=True) if leaves else ()
    model.train(was_training)
    # Not joined to one vector: that would need the gradients twice, and be the peak of a small run.
    return [value.detach()], [g for g in gradients if g is not None]


def _relative(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The norm of the difference over the norm of what is expected, over all tensors together."""
    gap = sum(float((a - b).double().square().sum()) for a, b in zip(expected, found, strict=True))
    return math.sqrt(gap / max(sum(float(a.double().square().sum()) for a in expected), 1e-24))
