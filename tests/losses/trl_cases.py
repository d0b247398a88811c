"""Pairs, a policy and its reference: a loss by trueup's path, the same by TRL's trainer, and their comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl_peer import as_rows, batch_of, draw_pairs, moved, tiny_llama, trainer

from trueup.data.trees import Tree, collate
from trueup.losses.pairs import PairLoss
from trueup.losses.reference_free import sft
from trueup.models.forward import token_scores
from trueup.train.objectives.preference import PreferenceObjective, pair_logps
from trueup.train.sources import DataBatch
from trueup.types import PairLogps, TokenTrees

Losses = Callable[[PairLogps], Tensor]
"""Pairs -> losses ``[B]``, whose mean is compared."""

PAIRS = draw_pairs([(4, 7, 6), (1, 5, 5), (8, 9, 8), (3, 3, 1), (5, 2, 8), (2, 6, 5)])
LEVEL = draw_pairs([(1, 5, 2), (1, 5, 9), (1, 5, 5), (1, 5, 1)], seed=1)
"""One-token prompts and chosen responses of one length, where TRL's likelihood terms are ours."""

REFERENCE = tiny_llama()
POLICY = moved(REFERENCE, 0.05)


def our_pairs(policy: Any, trees: Sequence[Tree]) -> PairLogps:
    """Both sides of every pair under policy and reference, by trueup's own path from token trees."""
    batch = collate(trees)
    return pair_logps(token_scores(policy, batch).logps, frozen(REFERENCE, batch), batch)


def our_loss(losses: Losses, trees: Sequence[Tree]) -> Tensor:
    """The mean of ``losses`` over the pairs; its gradient belongs to ``POLICY``."""
    return losses(our_pairs(POLICY, trees)).mean()


def by_objective(loss: PairLoss, trees: Sequence[Tree]) -> Tensor:
    """The same by the objective that a run uses."""
    objective, trees_batch = PreferenceObjective(loss), collate(trees)
    batch = DataBatch(trees_batch, frozen(REFERENCE, trees_batch))
    terms = objective(POLICY, batch).terms.values()
    return torch.stack([term.total * (term.weight / objective.units(batch)[term.unit]) for term in terms]).sum()


@torch.no_grad()
def frozen(model: Any, batch: TokenTrees) -> Tensor:
    return token_scores(model, batch).logps


def their_loss(kind: str, out: Path, trees: Sequence[Tree], **settings: Any) -> tuple[Tensor, Any]:
    """TRL's loss of the same pairs, and the copy of the policy that its gradient belongs to."""
    if kind == "dpo":
        settings["ref_model"] = moved(REFERENCE, 0.0)
    peer = trainer(kind, moved(POLICY, 0.0), as_rows(trees), out, **settings)
    return peer.compute_loss(peer.model, batch_of(peer)), peer.model


def assert_equal(ours: Tensor, theirs: tuple[Tensor, Any], policy: Any = POLICY) -> None:
    """The same value, and the same gradient with respect to every weight of the policy."""
    loss, model = theirs
    torch.testing.assert_close(ours, loss.to(ours.dtype), rtol=1e-5, atol=1e-6)
    found, expected = _gradient(ours, policy), _gradient(loss, model)
    assert expected.norm() > 1e-3
    assert (found - expected).norm() < 1e-5 * expected.norm()


def _gradient(loss: Tensor, model: Any) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def pooled_sft(pairs: PairLogps) -> Tensor:
    """TRL's likelihood term from ours: tokens weigh the same, so a pair weighs as its chosen response is long."""
    return sft(pairs) * pairs.chosen_count / pairs.chosen_count.float().mean()
