"""Every loss that TRL 1.16 has too, value and gradient, by TRL's own code on the same tokens and weights.

TRL's trainers are built around tiny models and their ``compute_loss`` is called; ours runs from token trees. This file
has the DPO trainer, ``test_other_losses_equal_trl.py`` the others. Where the two agree only under a relation, the
relation is what is tested:

| loss | TRL | here |
|---|---|---|
| ``sft``, also in mixtures and in ``cpo`` | mean over the tokens of the batch | mean over pairs of means over tokens |
| ``orpo``, likelihood term | the same mean, over prompt and chosen response | mean over pairs, response only |
| ``sigmoid`` with label smoothing | ``label_smoothing`` is ignored | conservative DPO, TRL's ``aot`` of single pairs |
| ``simpo`` | CPO trainer with ``cpo_alpha=0``; its default adds the likelihood term | the paper's loss |
| f-divergences with ``ipo`` and ``sigmoid_norm`` | accepted | refused: the prompt's term does not cancel |
| alpha divergence | ``f_alpha_divergence_coef`` | α = 1 - that |
| ``bco_pair``, ``bco`` | δ = 0; no trainer for single responses | δ is the running mean, or an option |
| ``kto`` | z is the batch's mean over mismatched pairs, at least 0 | z is the caller's |
| ``aot``, ``aot_unpaired`` | results in order of rank | each with its pair; the means agree |

Without a peer: TRL has no ``length_controlled`` and no ``dpop``; its LD-DPO (``ld_alpha``) and AlphaPO are not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trl_cases import (
    LEVEL,
    PAIRS,
    POLICY,
    Losses,
    assert_equal,
    by_objective,
    our_loss,
    our_pairs,
    pooled_sft,
    their_loss,
)
from trl_peer import QUIET

from trueup.errors import UserError
from trueup.losses.mixture import MIXTURES
from trueup.losses.pairs import choose
from trueup.losses.reference_free import sft
from trueup.types import PairLogps

pytest.importorskip("trl", reason="TRL is a peer of the tests alone: pip install '.[peers]'")
pytestmark = QUIET


@dataclass(frozen=True)
class Case:
    """One configuration of TRL's DPO trainer and the losses that must have its mean."""

    theirs: Mapping[str, Any]
    ours: Losses


def same(name: str, beta: float, theirs: Mapping[str, Any] | None = None, **options: float) -> Case:
    """A loss that has one name and one meaning in both; ``theirs`` where TRL calls the options differently."""
    settings = {"loss_type": [name], "beta": beta, **(options if theirs is None else theirs)}
    return Case(settings, choose(name, beta=beta, options=options).total)


def diverging(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], **options: float) -> Case:
    """The f-divergence variant of a loss, which either side calls differently."""
    chosen = choose(name, beta=0.4, options=options, **ours)
    return Case({"loss_type": [name], "beta": 0.4, **options, **theirs}, chosen.total)


def mixed(parts: Sequence[tuple[str, float]]) -> Case:
    """A weighted sum, with TRL's likelihood term in the place of ours."""
    names, weights = zip(*parts, strict=True)
    ours, likelihood = choose(dict(parts), beta=0.4), dict(parts).get("sft", 0.0)

    def losses(pairs: PairLogps) -> Tensor:
        return ours.total(pairs) + likelihood * (pooled_sft(pairs) - sft(pairs))

    return Case({"loss_type": list(names), "loss_weights": list(weights), "beta": 0.4}, losses)


FORWARD_KL: Sequence[Mapping[str, Any]] = {"divergence": "forward_kl"}, {"f_divergence_type": "forward_kl"}
JS: Sequence[Mapping[str, Any]] = {"divergence": "js"}, {"f_divergence_type": "js_divergence"}
ALPHA: Sequence[Mapping[str, Any]] = (
    {"divergence": "alpha", "alpha": 0.3},
    {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7},
)
"""Our settings, TRL's settings."""

PLAIN: Mapping[str, Case] = {
    "sigmoid": same("sigmoid", 0.4),
    "robust": same("robust", 0.4, label_smoothing=0.2),
    "ipo": same("ipo", 0.4),
    "hinge": same("hinge", 0.4),
    "exo_pair": same("exo_pair", 0.4, label_smoothing=0.05),
    "nca_pair": same("nca_pair", 0.4),
    "bco_pair": same("bco_pair", 0.4),
    "sppo_hard": same("sppo_hard", 0.1),
    "aot": same("aot", 0.4),
    "aot_unpaired": same("aot_unpaired", 0.4),
    "apo_zero": same("apo_zero", 0.4),
    "apo_down": same("apo_down", 0.4),
    "discopop": same("discopop", 0.05),
    "sigmoid_norm": same("sigmoid_norm", 5.0),
    "sft": Case({"loss_type": ["sft"]}, pooled_sft),
}

CASES: Mapping[str, Case] = {
    **PLAIN,
    "aot, smoothed": same("aot", 0.4, label_smoothing=0.2),
    "aot_unpaired, smoothed": same("aot_unpaired", 0.4, label_smoothing=0.2),
    "discopop, another tau": same("discopop", 0.4, {"discopop_tau": 0.3}, tau=0.3),
    "sigmoid, forward_kl": diverging("sigmoid", *FORWARD_KL),
    "hinge, forward_kl": diverging("hinge", *FORWARD_KL),
    "robust, js": diverging("robust", *JS, label_smoothing=0.2),
    "exo_pair, js": diverging("exo_pair", *JS, label_smoothing=0.05),
    "sigmoid, alpha": diverging("sigmoid", *ALPHA),
    "discopop, alpha": diverging("discopop", *ALPHA),
    "mpo": mixed(MIXTURES["mpo"]),
    "rpo": mixed(MIXTURES["rpo"]),
    "mixture without likelihood": mixed((("sigmoid", 0.7), ("ipo", 0.2), ("apo_zero", 1.5))),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert_equal(our_loss(case.ours, PAIRS), their_loss("dpo", tmp_path, PAIRS, **case.theirs))


def test_every_loss_type_of_trl_is_compared() -> None:
    from trl.trainer.dpo_config import DPOConfig

    named = set(re.findall(r"`'(\w+)'`", DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]))
    assert named == set(PLAIN)


def test_the_pairs_tell_losses_apart() -> None:
    """Margins have both signs, no two losses one value: nothing is compared at the reference or where ranks agree."""
    pairs = our_pairs(POLICY, PAIRS)
    assert pairs.ref_chosen is not None and pairs.ref_rejected is not None
    margin = (pairs.chosen - pairs.ref_chosen) - (pairs.rejected - pairs.ref_rejected)
    assert -10.0 < margin.min() < -0.5 and 0.5 < margin.max() < 10.0
    values = torch.stack([our_loss(case.ours, PAIRS) for case in CASES.values()])
    assert values.sort().values.diff().min() > 1e-3


@pytest.mark.parametrize("name", ["mpo", "rpo"])
def test_mixtures_with_a_likelihood_term_need_no_relation_where_lengths_agree(name: str, tmp_path: Path) -> None:
    theirs = their_loss("dpo", tmp_path, LEVEL, **CASES[name].theirs)
    assert_equal(by_objective(choose(name, beta=0.4), LEVEL), theirs)


def test_trl_ignores_label_smoothing_in_sigmoid(tmp_path: Path) -> None:
    theirs = their_loss("dpo", tmp_path, PAIRS, **PLAIN["sigmoid"].theirs, label_smoothing=0.2)
    assert_equal(our_loss(PLAIN["sigmoid"].ours, PAIRS), theirs)
    smoothed = our_loss(same("sigmoid", 0.4, label_smoothing=0.2).ours, PAIRS)
    assert abs((smoothed - theirs[0]).item()) > 0.01


@pytest.mark.parametrize("index", range(len(PAIRS)))
def test_smoothed_sigmoid_is_trls_smoothed_aot_of_single_pairs(index: int, tmp_path: Path) -> None:
    """One pair leaves nothing to sort, and what is left of AOT is conservative DPO."""
    pair = PAIRS[index : index + 1]
    ours = our_loss(same("sigmoid", 0.4, label_smoothing=0.2).ours, pair)
    assert_equal(ours, their_loss("dpo", tmp_path, pair, loss_type=["aot"], beta=0.4, label_smoothing=0.2))


def taken_by_trl(case: Case, out: Path) -> bool:
    try:
        their_loss("dpo", out, PAIRS[:1], **case.theirs, **FORWARD_KL[1])
    except ValueError as error:
        assert "f_divergence_type" in str(error)
        return False
    return True


def taken_by_us(name: str) -> bool:
    try:
        choose(name, **FORWARD_KL[0])
    except UserError:
        return False
    return True


def test_divergences_are_for_the_same_losses_except_those_over_lengths(tmp_path: Path) -> None:
    names = set(PLAIN) - {"sft"}  # which has no log-ratio
    differ = {name for name in names if taken_by_trl(PLAIN[name], tmp_path) != taken_by_us(name)}
    assert differ == {"ipo", "sigmoid_norm"}


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "apo_zero"])
def test_wpo_weights(name: str, tmp_path: Path) -> None:
    """By way of the objective, which measures the alignment of the weights."""
    ours = by_objective(choose(name, beta=0.4, weighting="wpo"), PAIRS)
    settings = {"loss_type": [name], "beta": 0.4, "use_weighting": True}
    assert_equal(ours, their_loss("dpo", tmp_path, PAIRS, **settings))
