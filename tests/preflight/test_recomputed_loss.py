"""Another loss than the one that is named is told apart from it, by its value or by its gradient alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import trueup.ops.divergences as divergences
import trueup.preflight.point as point_module
import trueup.train.objectives.grpo as grpo_module
import trueup.train.objectives.ppo as ppo_module
from trueup.losses.pairs import PairLoss
from trueup.preflight.outcome import Outcome
from trueup.preflight.point import check_point
from trueup.preflight.recomputed import check_recomputed
from trueup.preflight.run import SIZES, take_sample
from trueup.preflight.subject import Subject
from trueup.train.objectives.reward import RewardObjective
from trueup.train.objectives.sft import SftObjective

Prepare = Callable[..., Subject]
Patch = pytest.MonkeyPatch


def judged(subject: Subject) -> Outcome:
    outcome = check_recomputed(subject, take_sample(subject, SIZES["quick"]))
    assert "could not be made" not in outcome.told
    return outcome


def caught(subject: Subject) -> bool:
    return [finding.rule for finding in judged(subject).findings] == ["loss-recomputed"]


def pairs_seen(patch: Patch, change: Callable[[Any], Any]) -> None:
    right = PairLoss.values
    patch.setattr(PairLoss, "values", lambda self, pairs, *rest: right(self, change(pairs), *rest))


def values_changed(patch: Patch, change: Callable[[Any, Any], Any]) -> None:
    right = PairLoss.values
    patch.setattr(
        PairLoss,
        "values",
        lambda self, pairs, *rest: {n: change(v, pairs) for n, v in right(self, pairs, *rest).items()},
    )


# Pairs


def test_means_instead_of_sums_in_the_loss_alone(prepare: Prepare, monkeypatch: Patch) -> None:
    """At policy = reference both have the value log 2 (F29)."""
    subject = prepare("dpo")
    pairs_seen(monkeypatch, lambda p: replace(p, chosen=p.chosen / p.chosen_count, ref_chosen=p.ref_chosen / 5))
    assert caught(subject)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "simpo", "cpo", "dpop", "nca_pair"])
def test_a_beta_that_is_not_the_one_that_was_set(prepare: Prepare, monkeypatch: Patch, loss: str) -> None:
    right, subject = PairLoss.values, prepare("dpo", preference={"loss": loss, "beta": 0.7})
    assert judged(subject).status == "passed"

    def with_default(self: PairLoss, *args: Any) -> Any:
        parts = tuple(replace(part, settings={**part.settings, "beta": 0.1}) for part in self.parts)
        return right(replace(self, parts=parts), *args)

    monkeypatch.setattr(PairLoss, "values", with_default)
    assert caught(subject)


@pytest.mark.parametrize("divergence", ["forward_kl", "js", "alpha"])
def test_a_divergence_that_is_not_used(prepare: Prepare, monkeypatch: Patch, divergence: str) -> None:
    right, subject = PairLoss.values, prepare("dpo", preference={"divergence": divergence})
    assert judged(subject).status == "passed"
    plain = lambda self, *args: right(replace(self, divergence="reverse_kl"), *args)  # noqa: E731
    monkeypatch.setattr(PairLoss, "values", plain)
    assert caught(subject)


def test_orpo_without_its_likelihood(prepare: Prepare, monkeypatch: Patch) -> None:
    subject = prepare("orpo")
    values_changed(monkeypatch, lambda value, pairs: value + pairs.chosen / pairs.chosen_count)
    assert caught(subject)


def test_a_right_value_with_half_of_its_gradient(prepare: Prepare, monkeypatch: Patch) -> None:
    subject = prepare("dpo")
    values_changed(monkeypatch, lambda value, pairs: 0.5 * (value + value.detach()))
    assert caught(subject)


def test_what_has_no_second_formula_is_skipped_and_says_so(prepare: Prepare) -> None:
    for preference in ({"weighting": "wpo"}, {"loss": "aot"}):
        outcome = judged(prepare("dpo", preference=preference))
        assert outcome.status == "skipped" and "not written down" in outcome.told


# Responses, scores, tokens


def test_kto_with_its_weights_exchanged(prepare: Prepare) -> None:
    subject = prepare("kto", kto={"desirable_weight": 2.0, "undesirable_weight": 1.0})
    assert judged(subject).status == "passed"
    objective: Any = subject.objective
    right = objective.loss.function
    wrong = lambda logps, ref, desirable, point, **o: right(logps, ref, ~desirable, point, **o)  # noqa: E731
    assert caught(replace(subject, objective=replace(objective, loss=replace(objective.loss, function=wrong))))


def test_scores_without_their_centring(prepare: Prepare, monkeypatch: Patch) -> None:
    subject = prepare("reward-causal", reward={"centring": 0.5})
    assert judged(subject).status == "passed"
    right = RewardObjective.__call__
    monkeypatch.setattr(
        RewardObjective, "__call__", lambda self, model, batch: right(replace(self, centring=0.0), model, batch)
    )
    assert caught(subject)


def test_a_sum_over_tokens_that_is_divided_by_responses(prepare: Prepare, monkeypatch: Patch) -> None:
    subject = prepare("sft")
    monkeypatch.setattr(SftObjective, "units", lambda self, batch: {"token": float(batch.trees.num_branches)})
    assert caught(subject)


# Policy gradients


def test_k1_in_the_place_of_k3(prepare: Prepare, monkeypatch: Patch) -> None:
    subject = prepare("grpo")
    monkeypatch.setitem(divergences.ESTIMATORS, "k3", divergences.k1)  # type: ignore[arg-type]
    assert caught(subject)


def test_a_penalty_that_is_k3_in_value_and_k1_in_gradient(prepare: Prepare, monkeypatch: Patch) -> None:
    subject = prepare("grpo", grpo={"kl_coef": 0.5})
    k1, k3 = divergences.k1, divergences.k3
    both = lambda logps, ref: k3(logps, ref).detach() + k1(logps, ref) - k1(logps, ref).detach()  # noqa: E731
    monkeypatch.setitem(divergences.ESTIMATORS, "k3", both)  # type: ignore[arg-type]
    assert caught(subject)


@pytest.mark.parametrize("variant", ["grpo", "gspo", "rloo", "cispo"])
def test_a_ratio_that_is_always_one(prepare: Prepare, monkeypatch: Patch, variant: str) -> None:
    """At the policy that sampled it is 1 by right (F88)."""
    subject = prepare("grpo", grpo={"variant": variant})
    right = grpo_module.RATIOS
    still = {n: lambda x, old, *rest, f=f: f(x, x.detach(), *rest) for n, f in right.items()}
    monkeypatch.setattr(grpo_module, "RATIOS", still)
    assert caught(subject)


def test_ppo_whose_ratio_is_always_one_or_whose_critic_is_not_clipped(prepare: Prepare, monkeypatch: Patch) -> None:
    subject = prepare("ppo-separate")
    ratio, value = ppo_module.clipped_surrogate, ppo_module.clipped_value
    with monkeypatch.context() as patch:
        patch.setattr(ppo_module, "clipped_surrogate", lambda x, old, *rest: ratio(x, x.detach(), *rest))
        assert caught(subject)
    monkeypatch.setattr(ppo_module, "clipped_value", lambda new, old, returns, clip: value(new, old, returns, None))
    assert caught(subject)


# KTO's reference point


def pointed(subject: Subject) -> Outcome | None:
    return check_point(subject, take_sample(subject, SIZES["quick"]))


def test_the_point_of_the_run_is_that_of_foreign_responses_and_nothing_is_left_moved(prepare: Prepare) -> None:
    subject = prepare("kto")
    before = [leaf.detach().clone() for leaf in subject.leaves]
    outcome = pointed(subject)
    assert outcome is not None and outcome.status == "passed"
    assert all(torch.equal(a, b) for a, b in zip(before, subject.leaves, strict=True))
    assert pointed(prepare("kto-bco")) is None and pointed(prepare("dpo")) is None


@pytest.mark.parametrize("wrong", ["last", "none", "twice"])
def test_another_point_is_found_out(prepare: Prepare, wrong: str) -> None:
    """Of the last row alone (F64), always 0, of a sum that was divided by half of the rows."""
    subject = prepare("kto")
    right = subject.source.point
    subject.source.point = {
        "last": lambda model, rows: right(model, list(rows)[-1:]),
        "none": lambda model, rows: 0.0,
        "twice": lambda model, rows: 2 * right(model, rows),
    }[wrong]
    outcome = pointed(subject)
    assert outcome is not None and [finding.rule for finding in outcome.findings] == ["reference-point"]


def test_a_point_on_the_rows_own_responses(prepare: Prepare, monkeypatch: Patch) -> None:
    """The run's and the check's answers change places: which of them is wrong does not matter (F63)."""
    subject = prepare("kto")
    own = lambda subject: (rows := list(subject.rows[:4]), [subject.source.trees[row] for row in rows])  # noqa: E731
    monkeypatch.setattr(point_module, "_foreign", own)
    outcome = pointed(subject)
    assert outcome is not None and outcome.status == "found"
