"""Scalar scores of whole responses: the forward pass of a reward model over token trees."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trueup.models.forward import hidden_states
from trueup.types import TokenTrees


def reads_both_ways(model: Any) -> bool:
    """True for bidirectional encoders, whose prompt cannot be shared: it sees the response."""
    return not hasattr(model, "score")


def response_scores(model: nn.Module, trees: TokenTrees) -> Tensor:
    """Return one raw score a response, float32 ``[K]``; the hub's scorers have a head in float32.

    A causal backbone is read at each response's last token, whatever the padding or packing (the pooling of
    transformers' ``...ForSequenceClassification``). An encoder scores whole rows, so it needs the plain layout
    without packing, in branch order.
    """
    scorer: Any = model
    if not reads_both_ways(model):
        return scorer.score(hidden_states(model, trees)[trees.last]).float().squeeze(-1)
    if trees.tokens.shape[0] != trees.num_branches:
        raise ValueError("an encoder needs one response a row: collate(..., layout='plain', packing=False)")
    output = scorer(input_ids=trees.tokens, attention_mask=(trees.segment >= 0).long())
    return output.logits.float().squeeze(-1)
