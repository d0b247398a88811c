"""Reward modelling: a Bradley-Terry model of which response is preferred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from trueup.losses.ranking import bradley_terry
from trueup.models.scoring import response_scores
from trueup.train.protocols import Tally, Term
from trueup.train.sources import DataBatch


@dataclass(frozen=True)
class RewardObjective:
    """Mean Bradley-Terry loss over pairs; branches 2i and 2i + 1 are the chosen and rejected of pair i.

    Attributes:
        centring: weight of (chosen + rejected)^2, which fixes the otherwise free origin of scores.

    The margin of the batch, if it has one, is what the chosen score must lead by.
    """

    centring: float = 0.0

    def units(self, batch: DataBatch) -> Mapping[str, float]:
        """Pairs."""
        return {"pair": batch.trees.num_branches / 2}

    def __call__(self, model: nn.Module, batch: DataBatch) -> Tally:
        """Score both sides of every pair."""
        scores = response_scores(model, batch.trees)
        chosen, rejected = scores[0::2], scores[1::2]
        loss = bradley_terry(chosen, rejected, batch.margin, self.centring)
        difference = (chosen - rejected).detach()
        right = (difference > 0).float() + 0.5 * (difference == 0).float()
        pairs = float(len(difference))
        metrics = {
            "accuracy": (float(right.sum()), pairs),
            "margin": (float(difference.sum()), pairs),
            "mean_reward": (float(scores.detach().sum()), 2 * pairs),
        }
        return Tally({"ranking": Term(loss.sum(), "pair")}, metrics)
