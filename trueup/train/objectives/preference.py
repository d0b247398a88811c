"""Preference optimisation on pairs: DPO and its relatives from the loss catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trueup.losses.pairs import PairLoss
from trueup.models.forward import token_scores
from trueup.ops.logprobs import sum_by_branch
from trueup.train.companions import RunningMean
from trueup.train.protocols import Tally, Term
from trueup.train.sources import DataBatch
from trueup.types import PairLogps, TokenTrees


@dataclass(frozen=True)
class PreferenceObjective:
    """Mean preference loss over pairs; branches 2i and 2i + 1 are the chosen and rejected of pair i.

    Attributes:
        loss: what is computed of each pair.
        baseline: the running mean of implicit rewards, for the losses that want one; 0 without it.
        temperature: of the policy that is tuned, where pairs are its own samples: the one that samples.
    """

    loss: PairLoss
    baseline: RunningMean | None = None
    temperature: float = 1.0

    def units(self, batch: DataBatch) -> Mapping[str, float]:
        """Pairs."""
        return {"pair": batch.trees.num_branches / 2}

    def __call__(self, model: nn.Module, batch: DataBatch) -> Tally:
        """Score both sides, and compare them with each other and with the reference."""
        trees = batch.trees
        scores = token_scores(model, trees, self.temperature, collision=self.loss.weighted)
        pairs = pair_logps(scores.logps, batch.ref_logps if self.loss.needs_reference else None, trees)
        values = self.loss.values(pairs, self._delta, _alignment(scores.collision, trees))
        terms = {part.loss.name: Term(values[part.loss.name].sum(), "pair", part.weight) for part in self.loss.parts}
        metrics = {
            "entropy": (float(scores.entropy.sum()), float(len(trees.target))),
            **_pair_metrics(pairs, self.loss.beta),
        }
        if self.baseline is not None:
            metrics["delta"] = (self._delta * len(pairs.chosen), float(len(pairs.chosen)))
        return Tally(terms, metrics)

    def losses(self, pairs: PairLogps) -> Tensor:
        """The loss of each pair ``[B]``, before WPO's weights."""
        return replace(self.loss, weighted=False).total(pairs, self._delta)

    @property
    def _delta(self) -> float:
        return 0.0 if self.baseline is None else self.baseline.value


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


def _alignment(collision: Tensor | None, trees: TokenTrees) -> tuple[Tensor, Tensor] | None:
    """Sum log Σ_v π(v)² over the tokens of both sides, where it was measured."""
    if collision is None:
        return None
    total = sum_by_branch(collision, trees.branch, trees.num_branches).total
    return total[0::2], total[1::2]


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
