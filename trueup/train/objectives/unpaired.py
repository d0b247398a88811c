"""Preference optimisation on single responses that are marked wanted or unwanted: KTO and BCO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trueup.losses.entry import Loss
from trueup.models.forward import token_scores
from trueup.ops.logprobs import sum_by_branch
from trueup.train.protocols import Tally, Term
from trueup.train.unpaired import UnpairedBatch


@dataclass(frozen=True)
class UnpairedObjective:
    """Mean loss over responses.

    Attributes:
        loss: the catalog's entry, of family unpaired.
        settings: beta and the options of the loss.
    """

    loss: Loss
    settings: Mapping[str, float]

    def units(self, batch: UnpairedBatch) -> Mapping[str, float]:
        """Responses."""
        return {"sequence": float(batch.trees.num_branches)}

    def __call__(self, model: nn.Module, batch: UnpairedBatch) -> Tally:
        """Score the responses and compare them with the reference."""
        scores = token_scores(model, batch.trees)
        losses, logps, ratios = self._compared(scores.logps, batch.ref_logps, batch)
        metrics = {
            "entropy": (float(scores.entropy.sum()), float(len(batch.trees.target))),
            "delta" if self.loss.running_mean else "kl": _repeated(batch.reference_point, len(losses)),
            **_by_label(logps.detach(), self.settings["beta"] * ratios.detach(), batch.desirable),
        }
        return Tally({self.loss.name: Term(losses.sum(), "sequence")}, metrics)

    def losses(self, logps: Tensor, ref_logps: Tensor, batch: UnpairedBatch) -> Tensor:
        """The loss of each response ``[K]`` from token log-probabilities ``[N]``."""
        return self._compared(logps, ref_logps, batch)[0]

    def _compared(self, logps: Tensor, ref_logps: Tensor, batch: UnpairedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, summed log-probabilities and log-ratios, each ``[K]``."""
        trees = batch.trees
        policy, frozen = (
            sum_by_branch(values, trees.branch, trees.num_branches).total for values in (logps, ref_logps)
        )
        losses = self.loss.function(policy, frozen, batch.desirable, batch.reference_point, **self.settings)
        return losses, policy, policy - frozen


def _repeated(value: float, times: int) -> tuple[float, float]:
    return value * times, float(times)


@torch.no_grad()
def _by_label(logps: Tensor, rewards: Tensor, desirable: Tensor) -> dict[str, tuple[float, float]]:
    """Rewards and log-probabilities of wanted (chosen) and unwanted (rejected) responses, and over both."""
    out = {"rewards/mean": (float(rewards.sum()), float(len(rewards)))}
    for side, mask in (("chosen", desirable), ("rejected", ~desirable)):
        count = float(mask.sum())
        out[f"rewards/{side}"] = (float(rewards[mask].sum()), count)
        out[f"logps/{side}"] = (float(logps[mask].sum()), count)
    return out
