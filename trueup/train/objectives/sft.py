"""Supervised fine-tuning: the negative log-likelihood of response tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from trueup.models.forward import token_scores
from trueup.train.protocols import Tally, Term
from trueup.train.sources import DataBatch


@dataclass(frozen=True)
class SftObjective:
    """Mean negative log-likelihood over the response tokens of the whole step, terminators included."""

    def units(self, batch: DataBatch) -> Mapping[str, float]:
        """Response tokens."""
        return {"token": float(len(batch.trees.target))}

    def __call__(self, model: nn.Module, batch: DataBatch) -> Tally:
        """Sum the loss and count what was predicted right."""
        scores = token_scores(model, batch.trees)
        tokens = float(len(batch.trees.target))
        metrics = {
            "entropy": (float(scores.entropy.sum()), tokens),
            "mean_token_accuracy": (float(scores.top1.sum()), tokens),
        }
        return Tally({"nll": Term(-scores.logps.sum(), "token")}, metrics)
