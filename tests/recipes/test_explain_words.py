"""The verdict is no stronger than the intervals, and factors are what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from trueup.config.schema import DpoConfig, GrpoConfig
from trueup.errors import UserError
from trueup.losses.pairs import choose
from trueup.recipes.counterfactuals import Factor, Facts, changed, check_names, factors_of
from trueup.recipes.explain_effects import cells, factorial, gap, single_effects, strongest
from trueup.recipes.explain_measure import OUTCOMES, pair_outcomes
from trueup.recipes.explain_runs import BASE
from trueup.recipes.explain_words import Case, size, verdict
from trueup.types import PairLogps

MARGIN = OUTCOMES["dpo"][0]
FACTORS = {
    name: Factor(name, f"the {name}", f"{name} → other", {f"x.{name}": 1})
    for name in ("reference", "batch_size", "beta", "learning_rate")
}


def effect(estimate: float, low: float, high: float, p: float = 0.001) -> dict[str, float]:
    return {"estimate": estimate, "low": low, "high": high, "p_holm": p}


def judged(base: float, effects: Mapping[str, Mapping[str, float]], gap_p: float = 0.001, **more: Any):
    return verdict(Case(MARGIN, base, FACTORS, effects, lambda first, second: {"p": gap_p}, **more))


def test_the_largest_effect_that_comes_near_health_is_the_cause_and_the_batch_is_cleared() -> None:
    cause, words = judged(
        2.5,
        {
            "reference": effect(1 / 6.1, 1 / 9.2, 1 / 4.0),
            "batch_size": effect(1.4, 1.1, 1.8),
            "beta": effect(0.7, 0.6, 0.8),
        },
    )
    assert cause == "reference"
    assert "raw margin of 2.5 nats per token is the reference" in words and "÷6.10 [4.00, 9.20]" in words
    assert "makes it larger (x1.40 [1.10, 1.80]), so the batch size is not the cause" in words


def test_an_effect_within_chance_is_no_cause_however_large() -> None:
    cause, words = judged(2.5, {"reference": effect(0.1, 0.001, 1.3, p=0.2)})
    assert cause is None and "None of the tried factors lowers" in words


def test_a_dial_that_leaves_most_of_the_margin_is_no_cause() -> None:
    cause, words = judged(5.0, {"learning_rate": effect(0.5, 0.45, 0.55)})
    assert cause is None
    assert "None of the tried factors explains" in words and "leaves 2.5" in words


def test_two_causes_within_chance_of_each_other_are_both_named_and_neither_chosen() -> None:
    two = {"reference": effect(0.05, 0.02, 0.1), "beta": effect(0.08, 0.04, 0.2)}
    cause, words = judged(5.0, two, gap_p=0.3)
    assert cause is None and "cannot be told apart: the reference and the beta" in words
    assert judged(5.0, two)[0] == "reference"


def test_a_healthy_run_has_nothing_to_explain_even_where_effects_are_sure() -> None:
    cause, words = judged(0.3, {"reference": effect(0.1, 0.09, 0.11)})
    assert cause is None and "nothing to explain" in words
    assert judged(-0.9, {"reference": effect(0.1, 0.09, 0.11)})[0] == "reference"  # as far on the other side


def test_a_control_is_never_the_cause() -> None:
    control = Factor("control", "the control", "control", candidate=False)
    case = Case(MARGIN, 5.0, {"control": control}, {"control": effect(0.01, 0.005, 0.02)}, lambda a, b: {"p": 0.0})
    assert verdict(case)[0] is None


@pytest.mark.parametrize("base", [0.1, 5.0])
@pytest.mark.parametrize("effects", [{}, {"beta": effect(0.05, 0.04, 0.06)}])
def test_with_a_suspect_that_was_not_tested_no_cause_is_named(base: float, effects: Mapping[str, Any]) -> None:
    cause, words = judged(base, effects, doubts=["The reference was not tested."])
    assert cause is None and words.endswith("The reference was not tested.")
    assert words.startswith("Among what was tried") == (base == 5.0 and bool(effects))


@pytest.mark.parametrize(
    ("values", "scale", "words"),
    [
        ((0.25, 0.1, 0.5), "ratio", "÷4.00 [2.00, 10]"),
        ((1.4, 0.9, 12.3), "ratio", "x1.40 [0.90, 12]"),
        ((-0.31, -0.4, 0.22), "difference", "-0.31 [-0.40, +0.22]"),
        ((2.0, None, None), "ratio", "not known"),
    ],
)
def test_sizes(values: tuple[Any, ...], scale: str, words: str) -> None:
    assert size(dict(zip(("estimate", "low", "high"), values, strict=True)), scale) == words


def arms(**values: list[float]) -> dict[str, list[dict[str, float]]]:
    return {name.replace("base", BASE): [{MARGIN.name: v} for v in each] for name, each in values.items()}


def test_ratios_come_back_from_arms_that_differ_by_known_factors() -> None:
    """Replicates differ fourfold, arms by an exact factor, a sign counts for nothing."""
    found = arms(base=[1.0, 2.0, 4.0], reference=[0.25, 0.5, 1.0], beta=[-3.0, -6.0, -12.0])
    told = single_effects(found, {}, MARGIN)["effects"]
    assert (told["reference"]["estimate"], told["beta"]["estimate"]) == pytest.approx((0.25, 3.0))
    assert told["reference"]["low"] == pytest.approx(told["reference"]["high"])
    assert gap(found, MARGIN, "reference", "beta")["estimate"] == pytest.approx(1 / 12)


def test_a_restless_control_does_not_widen_the_intervals_of_candidates() -> None:
    found = arms(base=[1.0, 1.1, 0.9], beta=[0.5, 0.6, 0.45])
    control = arms(wild=[0.2, 8.0, 1.0])
    alone, beside = single_effects(found, {}, MARGIN), single_effects(found, control, MARGIN)
    assert alone["effects"]["beta"] == beside["effects"]["beta"]
    assert beside["effects"]["wild"]["low"] < 0.05 < 20 < beside["effects"]["wild"]["high"]


def test_what_is_near_nothing_counts_as_the_floor_and_is_counted() -> None:
    found = single_effects(arms(base=[2.0, 2.0], reference=[0.001, -0.0]), {}, MARGIN)
    assert found["floored"] == 2
    assert found["effects"]["reference"]["estimate"] == pytest.approx(MARGIN.floor / 2.0)


def test_the_factorial_finds_main_effects_and_no_interaction_in_a_multiplicative_world() -> None:
    two = [FACTORS["reference"], FACTORS["batch_size"]]
    world = {}
    for cell in cells(two):
        names = [factor.name for factor in cell]
        level = 4.0 * (1 / 5 if "reference" in names else 1) * (1.4 if "batch_size" in names else 1)
        world[" + ".join(names) or BASE] = [{MARGIN.name: level * luck} for luck in (1.0, 1.3, 0.7)]
    told = factorial(world, two, MARGIN)
    found = {name: told[name]["estimate"] for name in told}
    assert found == pytest.approx({"reference": 0.2, "batch_size": 1.4, "reference x batch_size": 1.0})


def test_the_strongest_are_candidates_that_can_be_combined() -> None:
    known = [
        Factor("a", "a", "a", {"preference.beta": 1}),
        Factor("b", "b", "b", {"preference.beta": 2}),
        Factor("c", "c", "c", {"optim.batch_size": 8}),
        Factor("d", "d", "d", candidate=False),
    ]
    effects = {"a": effect(0.5, 0, 1), "b": effect(4.0, 1, 9), "c": effect(0.9, 0, 1), "d": effect(0.01, 0, 1)}
    assert [f.name for f in strongest(known, effects, MARGIN)] == ["b", "c"]


def test_outcomes_of_pairs_are_their_closed_forms() -> None:
    """Two pairs by hand: log-ratios +6 and -2 over 3 and 4 tokens, +1 and 0 over 2 and 1."""
    t = torch.tensor
    pairs = PairLogps(
        chosen=t([-3.0, -4.0]),
        rejected=t([-10.0, -3.0]),
        chosen_count=t([3, 2]),
        rejected_count=t([4, 1]),
        ref_chosen=t([-9.0, -5.0]),
        ref_rejected=t([-8.0, -3.0]),
    )
    found = pair_outcomes(pairs, choose("sigmoid", beta=0.6), vocabulary=20)
    assert found["margin/raw"] == pytest.approx((8 + 1) / 2)
    assert found["margin/raw_per_token"] == pytest.approx((2 + 0.5 + 0.5 - 0) / 2)
    assert found["rewards/margins"] == pytest.approx(0.6 * 4.5)
    assert found["gradient_weight/saturated"] == 0.5  # sigma(-4.8) = 0.0082, sigma(-0.6) = 0.35
    assert found["logps/chosen_lift"] == pytest.approx((2 + 0.5) / 2)
    assert found["loss"] == pytest.approx((math.log1p(math.exp(-4.8)) + math.log1p(math.exp(-0.6))) / 2, rel=1e-6)
    assert found["reference/support"] == pytest.approx((3 + 2.5) / 2 / math.log(20))
    assert found["reference/separability"] == 0.375  # of -3 and -2.5 against -2 and -3: one tie, one win in four
    assert found["margin/chosen_share"] == pytest.approx(3.5 / 4.5)
    assert found["margin/length_correlation"] == pytest.approx(1.0)
    per_token = pair_outcomes(pairs, choose("sigmoid_norm", beta=2.0), vocabulary=20)
    assert per_token["rewards/margins"] == pytest.approx(2.0 * 1.5)


def dpo(**sections: Any) -> DpoConfig:
    return DpoConfig.model_validate({"model": {"path": "m"}, "data": {"path": "d"}, "run": {"out": "o"}, **sections})


def test_every_factor_of_dpo_changes_what_it_says_and_nothing_else() -> None:
    config = dpo(optim={"batch_size": 1, "learning_rate": 3e-4}, preference={"rejected": "reference"})
    factors, skipped = factors_of(Facts("dpo", config, (40.0, 20.0), 60, "broad", "broad"))
    assert skipped == {}
    after: dict[str, Any] = {f.name: changed("dpo", config, f.changes) for f in factors}
    assert after["batch_size"].optim.batch_size == 8 and after["batch_size"].preference == config.preference
    assert after["learning_rate"].optim.learning_rate == pytest.approx(1e-4)
    assert after["beta"].preference.beta == pytest.approx(0.3)  # three times the loss's own 0.1
    assert after["reference"].model.path == "broad" and after["reference"].preference.reference is None
    assert after["rejected_source"].preference.rejected == "file"
    assert after["length_normalisation"].preference.loss == "sigmoid_norm"
    assert after["length_normalisation"].preference.beta == pytest.approx(0.1 * 30)
    assert after["response_cap"] == config and next(f.rows for f in factors if f.name == "response_cap") == "capped"
    assert [f.name for f in factors if not f.candidate] == ["no_preference"]


def test_a_named_reference_is_replaced_without_moving_the_start_and_a_large_batch_is_cut() -> None:
    config = dpo(optim={"batch_size": 64}, preference={"reference": "old"})
    factors, _ = factors_of(Facts("dpo", config, (20.0, 20.0), 60, "broad", "broad"))
    found = {f.name: f for f in factors}
    assert found["reference"].changes == {"preference.reference": "broad"}
    assert found["batch_size"].changes == {"optim.batch_size": 8} and "1/8 of the examples" in found["batch_size"].note
    assert found["rejected_source"].changes["decoding"]["max_new_tokens"] == 60


def test_factors_that_do_not_apply_say_why_and_unknown_ones_are_refused() -> None:
    config = dpo(preference={"loss": "mpo"})
    factors, skipped = factors_of(Facts("dpo", config, (20.0, 20.0), 60, None, "no other reference is known"))
    assert skipped["reference"] == "no other reference is known"
    assert {"length_normalisation", "response_cap"} <= set(skipped)
    assert {"batch_size", "learning_rate"} <= {f.name for f in factors}
    with pytest.raises(UserError, match=r"'batch' is no factor of dpo; known: reference, batch_size"):
        check_names("dpo", ["beta", "batch"])


def test_the_kl_coefficient_of_a_variant_is_found() -> None:
    sections = {"model": {"path": "m"}, "data": {"path": "d"}, "run": {"out": "o"}, "rollout": {"reward": "r"}}
    config = GrpoConfig.model_validate({**sections, "grpo": {"variant": "dapo"}})
    factors, skipped = factors_of(Facts("grpo", config))
    found = {f.name: f for f in factors}
    assert found["kl_coef"].changes == {"grpo.kl_coef": 0.1}  # dapo has none
    assert found["group_size"].changes == {"grpo.group_size": 16, "rollout.prompts_per_rollout": 32}
    assert skipped == {"temperature": "it is 1 already"}
