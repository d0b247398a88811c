"""Preference optimisation on pairs: DPO and its relatives from the loss catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trueup.losses.catalog import Loss
from trueup.models.forward import TokenLogps, token_scores
from trueup.ops.logprobs import sum_by_branch
from trueup.train.protocols import Tally, Term
from trueup.types import PairLogps, TokenTrees


@dataclass(frozen=True)
class PreferenceObjective:
    """Mean preference loss over pairs; branches 2i and 2i + 1 are the chosen and rejected of pair i.

    Attributes:
        loss: the catalog's entry.
        beta: strength of the pull to the reference.
        reference: scores trees under the frozen reference; None for losses that need none.
        options: further options of the loss.
    """

    loss: Loss
    beta: float
    reference: TokenLogps | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def units(self, batch: TokenTrees) -> Mapping[str, float]:
        """Pairs."""
        return {"pair": batch.num_branches / 2}

    def __call__(self, model: nn.Module, batch: TokenTrees) -> Tally:
        """Score both sides under policy and reference."""
        scores = token_scores(model, batch)
        pairs = pair_logps(scores.logps, self.reference(batch) if self.reference else None, batch)
        losses = self.losses(pairs)
        metrics = {
            "entropy": (float(scores.entropy.sum()), float(len(batch.target))),
            **_pair_metrics(pairs, self.beta),
        }
        return Tally({"preference": Term(losses.sum(), "pair")}, metrics)

    def losses(self, pairs: PairLogps) -> Tensor:
        """The loss of each pair ``[B]``, with this run's beta (where the loss has one) and options."""
        beta = {} if self.loss.default_beta is None else {"beta": self.beta}
        return self.loss.function(pairs, **beta, **self.options)


def pair_logps(logps: Tensor, ref_logps: Tensor | None, trees: TokenTrees) -> PairLogps:
    """Sum token log-probabilities ``[N]`` to the two sides of each pair."""
    policy = sum_by_branch(logps, trees.branch, trees.num_branches)
    reference = None if ref_logps is None else sum_by_branch(ref_logps, trees.branch, trees.num_branches).total
    return PairLogps(
        chosen=policy.total[0::2],
        rejected=policy.total[1::2],
        chosen_count=policy.count[0::2],
        rejected_count=policy.count[1::2],
        ref_chosen=None if reference is None else reference[0::2],
        ref_rejected=None if reference is None else reference[1::2],
    )


@torch.no_grad()
def _pair_metrics(pairs: PairLogps, beta: float) -> dict[str, tuple[float, float]]:
    """Rewards, margins in each of their units, and how much gradient is left (docs/metrics.md)."""
    count = float(len(pairs.chosen))
    metrics = {"logps/chosen": pairs.chosen, "logps/rejected": pairs.rejected}
    if pairs.ref_chosen is not None and pairs.ref_rejected is not None:
        chosen, rejected = pairs.chosen - pairs.ref_chosen, pairs.rejected - pairs.ref_rejected
        raw = chosen - rejected
        weight = torch.sigmoid(-beta * raw)
        metrics |= {
            "rewards/chosen": beta * chosen,
            "rewards/rejected": beta * rejected,
            "rewards/margins": beta * raw,
            "rewards/accuracies": (raw > 0).float() + 0.5 * (raw == 0).float(),
            "rewards/ties": (raw == 0).float(),
            "margin/raw": raw,
            "margin/raw_per_token": chosen / pairs.chosen_count - rejected / pairs.rejected_count,
            "gradient_weight/mean": weight,
            "gradient_weight/active": (weight > 0.01).float(),
        }
    return {name: (float(value.sum()), count) for name, value in metrics.items()}
