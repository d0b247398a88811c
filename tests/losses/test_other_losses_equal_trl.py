"""The losses of TRL's CPO, ORPO, KTO and reward trainers; what differs is listed in ``test_losses_equal_trl.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor
from trl_cases import LEVEL, PAIRS, POLICY, REFERENCE, assert_equal, frozen, our_loss, pooled_sft, their_loss
from trl_peer import QUIET, as_rows, batch_of, moved, trainer

from trueup.data.trees import Tree, collate
from trueup.losses.ranking import bradley_terry
from trueup.losses.reference_free import cpo, orpo, sft, simpo
from trueup.losses.unpaired import bco, kto
from trueup.models.forward import token_scores
from trueup.models.scoring import response_scores
from trueup.ops.logprobs import sum_by_branch
from trueup.types import PairLogps

pytest.importorskip("trl", reason="TRL is a peer of the tests alone: pip install '.[peers]'")
pytestmark = QUIET


def test_simpo(tmp_path: Path) -> None:
    settings = {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.6, "cpo_alpha": 0.0}
    assert_equal(our_loss(partial(simpo, beta=2.0, gamma=0.6), PAIRS), their_loss("cpo", tmp_path, PAIRS, **settings))


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_cpo(weight: float, tmp_path: Path) -> None:
    ours = our_loss(lambda pairs: cpo(pairs, beta=0.2, sft_weight=0.0) + weight * pooled_sft(pairs), PAIRS)
    assert_equal(ours, their_loss("cpo", tmp_path, PAIRS, loss_type="sigmoid", beta=0.2, cpo_alpha=weight))


def test_cpo_needs_no_relation_where_lengths_agree(tmp_path: Path) -> None:
    ours = our_loss(partial(cpo, beta=0.2, sft_weight=0.7), LEVEL)
    assert_equal(ours, their_loss("cpo", tmp_path, LEVEL, loss_type="sigmoid", beta=0.2, cpo_alpha=0.7))


def test_orpo_needs_no_relation_where_prompts_and_lengths_make_no_difference(tmp_path: Path) -> None:
    assert_equal(our_loss(partial(orpo, beta=0.3), LEVEL), their_loss("orpo", tmp_path, LEVEL, beta=0.3))


def test_orpo_of_trl_learns_the_prompts_too(tmp_path: Path) -> None:
    odds = our_loss(lambda pairs: orpo(pairs, beta=0.3) - sft(pairs), PAIRS)
    whole = collate([Tree(tree.prompt[:1], (tree.prompt[1:] + tree.responses[0],)) for tree in PAIRS])
    assert_equal(odds - token_scores(POLICY, whole).logps.mean(), their_loss("orpo", tmp_path, PAIRS, beta=0.3))


def test_bco_of_both_sides_is_trls_bco_pair(tmp_path: Path) -> None:
    def both_sides(pairs: PairLogps) -> Tensor:
        assert pairs.ref_chosen is not None and pairs.ref_rejected is not None
        good = torch.ones(len(pairs.chosen), dtype=torch.bool)
        chosen = bco(pairs.chosen, pairs.ref_chosen, good, 0.0, beta=0.4)
        return chosen + bco(pairs.rejected, pairs.ref_rejected, ~good, 0.0, beta=0.4)

    assert_equal(our_loss(both_sides, PAIRS), their_loss("dpo", tmp_path, PAIRS, loss_type=["bco_pair"], beta=0.4))


SINGLE = [Tree(tree.prompt, (response,)) for tree in PAIRS for response in tree.responses][:-1]
"""Chosen and rejected responses in turn, one chosen more than rejected."""

WEIGHTS: Mapping[str, Any] = {"desirable_weight": 1.3, "undesirable_weight": 0.8}
KTO_SETTINGS: Mapping[str, Any] = {
    "beta": 0.4,
    "train_sampling_strategy": "sequential",
    "per_device_train_batch_size": len(SINGLE),
}


def their_kto(policy: Any, reference: Any, out: Path, loss_type: str) -> tuple[Tensor, Any]:
    rows = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in as_rows(PAIRS)
        for side in ("chosen", "rejected")
    ][: len(SINGLE)]
    settings = {"ref_model": moved(reference, 0.0), "loss_type": loss_type, **KTO_SETTINGS, **WEIGHTS}
    peer = trainer("kto", moved(policy, 0.0), rows, out, **settings)
    return peer.compute_loss(peer.model, batch_of(peer)), peer.model


def log_probabilities(policy: Any, reference: Any, trees: Sequence[Tree]) -> tuple[Tensor, Tensor]:
    """Sums of single responses under policy and reference."""
    batch = collate(trees)
    policy_sum = sum_by_branch(token_scores(policy, batch).logps, batch.branch, batch.num_branches)
    return policy_sum.total, sum_by_branch(frozen(reference, batch), batch.branch, batch.num_branches).total


def our_kto(policy: Any, reference: Any, reference_point: Tensor | float) -> Tensor:
    desirable = torch.tensor([i % 2 == 0 for i in range(len(SINGLE))])
    logps, ref_logps = log_probabilities(policy, reference, SINGLE)
    return kto(logps, ref_logps, desirable, reference_point, beta=0.4, **WEIGHTS).mean()


@pytest.mark.parametrize("swapped", [False, True])
def test_kto(swapped: bool, tmp_path: Path) -> None:
    """z from each prompt with the response before its own; one of the two directions has it negative, so it is 0."""
    policy, reference = (REFERENCE, POLICY) if swapped else (POLICY, REFERENCE)
    before = [SINGLE[-1], *SINGLE[:-1]]
    mismatched = [Tree(tree.prompt, other.responses) for tree, other in zip(SINGLE, before, strict=True)]
    logps, ref_logps = log_probabilities(policy, reference, mismatched)
    estimate = (logps - ref_logps).mean()
    assert estimate < -0.1 if swapped else estimate > 0.1
    ours = our_kto(policy, reference, estimate.clamp(min=0.0))
    assert_equal(ours, their_kto(policy, reference, tmp_path, "kto"), policy)


def test_kto_without_a_reference_point_is_trls_unpaired_apo_zero(tmp_path: Path) -> None:
    theirs = their_kto(POLICY, REFERENCE, tmp_path, "apo_zero_unpaired")
    assert_equal(our_kto(POLICY, REFERENCE, 0.0), theirs)


@pytest.mark.parametrize("with_margin", [False, True])
def test_bradley_terry(with_margin: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = hf.LlamaConfig(**{**POLICY.config.to_dict(), "num_labels": 1, "architectures": None})
    scorer = hf.LlamaForSequenceClassification(config)
    margins = [0.3, 0.0, 1.5, -0.2, 0.7, 0.1]
    rows = [{**row, **({"margin": m} if with_margin else {})} for row, m in zip(as_rows(PAIRS), margins, strict=True)]
    peer = trainer("reward", moved(scorer, 0.0), rows, tmp_path, center_rewards_coefficient=0.2)
    scores = response_scores(scorer, collate(PAIRS))
    margin = torch.tensor(margins) if with_margin else None
    ours = bradley_terry(scores[0::2], scores[1::2], margin, centring=0.2).mean()
    assert_equal(ours, (peer.compute_loss(peer.model, batch_of(peer)), peer.model), scorer)
