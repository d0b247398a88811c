"""A learned reward model as a reward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from trueup.data.batching import Batching, map_responses
from trueup.models.scoring import reads_both_ways, response_scores
from trueup.rewards.protocol import Completions, Scores


@dataclass(frozen=True)
class LearnedReward:
    """Scores responses with a frozen reward model that shares the policy's tokenizer.

    Attributes:
        model: a model with a scalar head; put into evaluation mode, without gradients.
        batching: how completions are cut into forward passes.
    """

    model: Any
    batching: Batching

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(False)
        if reads_both_ways(self.model):
            object.__setattr__(self, "batching", replace(self.batching, layout="plain"))

    @torch.no_grad()
    def __call__(self, completions: Completions) -> Scores:
        """Raw scores of the model's head."""
        return Scores(map_responses(completions.trees, lambda trees: response_scores(self.model, trees), self.batching))
