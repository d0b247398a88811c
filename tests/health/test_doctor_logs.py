"""What the doctor reads off one log and off two: units, weights, equal sides, beta. Logs are made from the formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from trueup.health.doctor import ALL, NAMES, compare, complete, diagnose
from trueup.health.findings import Finding
from trueup.health.readers.sources import open_path
from trueup.health.readers.translate import Told
from trueup.health.rule import RunLog
from trueup.health.rules_foreign.margin_unit import margin_unit

HERE = Path(__file__).parent
RAW = (
    1.08,
    0.0,
    57.0,
    109.0,
    77.0,
    15.0,
    241.0,
    296.0,
    1.8,
    32.0,
    232.0,
    -19.0,
    172.0,
    126.0,
    599.0,
    398.0,
    174.0,
    50.0,
)
"""Margins of single pairs as a script logs them: the second pair has two equal sides."""


def softplus(x: float) -> float:
    return float(np.logaddexp(0.0, x))


def script_log(beta: float, raw: Sequence[float] = RAW, logged: float = 1.0, every: int = 10) -> RunLog:
    """A log of one pair a step with six decimals; ``logged`` is what the raw margin is multiplied by before logging."""
    steps = [every * (i + 1) for i in range(len(raw))]
    rows = [
        (step, round(softplus(-beta * margin), 6), round(logged * margin, 6))
        for step, margin in zip(steps, raw, strict=True)
    ]
    series = {"loss": [(s, loss) for s, loss, _ in rows], "rewards/margins": [(s, m) for s, _, m in rows]}
    return RunLog({**series, "rewards/accuracies": [(s, float(m > 0)) for s, _, m in rows]}, "dpo")


def found(log: RunLog, rule: str) -> Finding | None:
    return next((finding for finding in diagnose(log).findings if finding.rule == rule), None)


margins = st.lists(st.floats(-80, 80).filter(lambda m: abs(m) > 2), min_size=4, max_size=30).map(
    lambda m: [3.0, -13.0, *m]
)


@given(st.floats(0.03, 0.8), margins)
def test_beta_is_solved_from_the_loss(beta: float, raw: list[float]) -> None:
    unit = margin_unit(script_log(beta, raw))
    assume(unit is not None)  # too many losses of 0 in six decimals
    assert unit is not None and unit.raw and unit.factor == pytest.approx(beta, rel=0.01)
    assert unit.low <= unit.factor <= unit.high


@given(st.floats(0.03, 0.8), margins)
def test_a_margin_with_beta_in_it_is_left_alone(beta: float, raw: list[float]) -> None:
    log = script_log(beta, raw, logged=beta)
    unit = margin_unit(log)
    assert unit is None or not unit.raw
    assert found(log, "margin-without-beta") is None
    assert complete(log).series["rewards/margins"] == log.series["rewards/margins"]


@given(st.integers(0, 1000))
def test_means_over_many_pairs_are_not_taken_for_single_ones(seed: int) -> None:
    """Scaled margins whose mean loss is above that of the mean: no factor fits, and none is named."""
    rng = np.random.default_rng(seed)
    pairs = rng.normal(np.linspace(0, 3, 25)[:, None], 3.0, size=(25, 32))
    loss, margin = np.logaddexp(0, -pairs).mean(1), pairs.mean(1)
    series = {"loss": list(enumerate(loss.tolist(), 1)), "rewards/margins": list(enumerate(margin.tolist(), 1))}
    assert found(RunLog(series, "dpo"), "margin-without-beta") is None


def test_a_plateau_of_large_batches_is_not_taken_for_a_factor() -> None:
    """Margins around 3 with a spread: softplus(-mean) is a fifth of the mean loss, at every step alike."""
    rng = np.random.default_rng(0)
    pairs = rng.normal(3.0, 3.0, size=(30, 4096))
    loss, margin = np.logaddexp(0, -pairs).mean(1), pairs.mean(1)
    series = {"loss": list(enumerate(loss.tolist(), 1)), "rewards/margins": list(enumerate(margin.tolist(), 1))}
    assert margin_unit(RunLog(series, "dpo")) is None


def test_the_units_are_told_with_numbers_and_corrected_for_the_other_rules() -> None:
    log = script_log(0.1)
    finding = found(log, "margin-without-beta")
    assert finding is not None and finding.severity == "warning"
    scaled = 0.1 * np.array(RAW)
    assert finding.evidence["beta"] == pytest.approx(0.1, rel=1e-3)
    assert finding.evidence["scaled_mean"] == pytest.approx(scaled.mean(), rel=1e-3)
    assert (finding.evidence["raw_max"], finding.evidence["scaled_max"]) == pytest.approx((599, 59.9), rel=1e-3)
    whole = complete(log)
    assert [value for _, value in whole.series["rewards/margins"]] == pytest.approx(scaled, rel=1e-3)
    assert whole.settings["preference.beta"] == pytest.approx(0.1, rel=1e-3)


def test_saturation_is_judged_in_the_units_of_the_loss() -> None:
    """Raw margins of about 8 at beta 0.02 are small; at beta 1 they are not. Judged raw, both would be far."""
    raw = np.random.default_rng(0).uniform(2, 14, 40).tolist()
    assert found(script_log(0.02, raw), "saturation") is None
    far = found(script_log(1.0, raw), "saturation")
    assert far is not None and far.evidence["rewards/margins"] == pytest.approx(8, abs=1.5)


def test_weights_are_those_of_the_gradient() -> None:
    log, weights = script_log(0.1), 1 / (1 + np.exp(0.1 * np.array(RAW)))
    finding = found(log, "gradient-gone")
    assert finding is not None
    assert finding.evidence["mean_weight"] == pytest.approx(weights.mean(), abs=1e-5)
    assert finding.evidence["effective_share"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum() / 18, abs=1e-5)
    assert finding.evidence["share"] == pytest.approx((weights < 0.01).mean())
    assert finding.first_step == 30  # the first pair that was already decided


def test_weights_are_not_judged_where_the_loss_may_be_another() -> None:
    small = RunLog({"loss": [(i, 1e-4) for i in range(1, 30)]}, "dpo")
    assert found(small, "gradient-gone") is None
    assert "gradient-gone" in diagnose(small).short  # and that is said
    logistic = RunLog(small.series, "dpo", {"preference.loss": "sigmoid"})
    assert found(logistic, "gradient-gone") is not None
    better = RunLog(
        {**small.series, "gradient_weight/active": [(i, 1.0) for i in range(1, 30)]}, "dpo", logistic.settings
    )
    assert found(better, "gradient-gone") is None


def test_a_pair_of_equal_sides_is_told_from_a_policy_at_its_reference() -> None:
    finding = found(script_log(0.1), "exact-zero-margin")
    assert finding is not None and finding.first_step == 20
    assert (finding.evidence["zero_steps"], finding.evidence["moved_at"]) == ([20], 10)
    assert finding.evidence["margin_then"] == 1.08
    assert "1.08" in finding.message and "tie" in finding.message
    # At the start the two are the same, and a margin of 0 is what it should be.
    assert found(script_log(0.1, (0.0, 0.0, *RAW[2:])), "exact-zero-margin") is None
    # Nearly 0 is not 0.
    assert found(script_log(0.1, (1.08, 0.003, *RAW[2:])), "exact-zero-margin") is None


def test_two_pairs_that_cancel_are_not_equal_sides() -> None:
    """Their margin has a mean of exactly 0 and their loss is above ln 2."""
    log = script_log(0.1)
    loss = [(s, (softplus(2.0) + softplus(-2.0)) / 2 if s == 20 else value) for s, value in log.series["loss"]]
    assert (
        found(RunLog({**log.series, "loss": loss}, "dpo", {"preference.loss": "sigmoid"}), "exact-zero-margin") is None
    )


def test_a_higher_beta_with_smaller_raw_and_larger_scaled_margins_is_named() -> None:
    weak, strong = script_log(0.1), script_log(0.3, [0.5 * margin for margin in RAW])
    (finding, same) = compare([("a", strong), ("b", weak)])  # in any order
    assert (finding.rule, same.rule) == ("beta-direction", "same-examples")
    assert finding.evidence["beta"] == pytest.approx([0.1, 0.3], rel=1e-3)
    assert finding.evidence["raw_mean"] == pytest.approx([np.mean(RAW), 0.5 * np.mean(RAW)], rel=1e-3)
    assert finding.evidence["scaled_mean"] == pytest.approx([0.1 * np.mean(RAW), 0.15 * np.mean(RAW)], rel=1e-3)
    assert same.evidence["spearman"] == pytest.approx(1)


def test_a_higher_beta_that_works_is_not_named() -> None:
    weak, strong = script_log(0.1), script_log(0.3, [0.2 * margin for margin in RAW])
    assert [finding.rule for finding in compare([("a", weak), ("b", strong)])] == ["same-examples"]
    assert [f.rule for f in compare([("a", weak), ("b", weak)])] == ["same-examples"]  # one beta


def test_two_runs_that_merely_both_rise_do_not_share_examples() -> None:
    rng = np.random.default_rng(1)
    logs = [
        RunLog({"rewards/margins": [(i, 0.1 * i + noise) for i, noise in enumerate(rng.normal(0, 0.3, 60), 1)]}, "dpo")
        for _ in range(2)
    ]
    assert compare([("a", logs[0]), ("b", logs[1])]) == []


def test_margins_come_from_the_rewards_where_they_are_not_logged() -> None:
    chosen, rejected = [(1, 1.0), (2, 3.0)], [(2, 0.5), (3, 1.0)]
    whole = complete(RunLog({"rewards/chosen": chosen, "rewards/rejected": rejected}, "dpo"))
    assert whole.series["rewards/margins"] == [(2, 2.5)]


@given(
    st.sets(st.sampled_from(sorted(NAMES))),
    st.sampled_from([None, "sft", "reward", "dpo", "kto", "orpo", "ppo", "grpo", "rloo"]),
    st.integers(1, 60),
)
@example({"rewards/chosen", "rewards/rejected", "margin/raw", "logps/chosen"}, None, 20)
def test_every_rule_of_a_method_is_accounted_for_once(names: set[str], method: str | None, length: int) -> None:
    log = RunLog({name: [(i, 0.1 + 0.001 * i) for i in range(1, length + 1)] for name in names}, method)
    diagnosis = diagnose(log)
    fired = [finding.rule for finding in diagnosis.findings]
    places = [*fired, *diagnosis.quiet, *diagnosis.short, *(rule.rule for rule in diagnosis.unjudged)]
    assert sorted(places) == sorted(rule.name for rule in ALL if rule.applies(method))
    assert all(not rule.sees(log.series) for rule in ALL if rule.name in {u.rule for u in diagnosis.unjudged})


def test_too_few_values_are_not_called_in_order() -> None:
    log = RunLog({"rewards/margins": [(1, 50.0), (2, 60.0)]}, "dpo")
    diagnosis = diagnose(log)
    assert "saturation" in diagnosis.short and "saturation" not in diagnosis.quiet
    lacks = {rule.rule: rule.lacks for rule in diagnosis.unjudged}
    assert lacks["displacement"] == (("entropy", "logps/chosen", "rewards/chosen"),)
    assert lacks["margin-units"] == (("margin/raw",),)


def test_what_happened_on_the_way_is_found() -> None:
    """A rule that is asked at the end alone would see a healthy last window."""
    losses = [0.7] * 80 + [math.nan] + [0.7] * 80
    finding = found(RunLog({"loss": list(enumerate(losses, 1))}, "sft"), "not-finite")
    assert finding is not None and finding.first_step == 81


def test_recorded_findings_are_kept_and_the_gravest_wins() -> None:
    early = Finding("identical-pairs", "note", 0, "m", "r")
    worse = Finding("gradient-gone", "fatal", 5, "m", "r")
    findings = diagnose(script_log(0.1), [early, worse]).findings
    assert [f.rule for f in findings if f.severity == "fatal"] == ["gradient-gone"]
    assert findings[-1] == early


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_real_logs_of_trl(name: str, tmp_path: Path) -> None:
    """TRL 1.16 on a tiny random model: DPO is healthy, GRPO's responses mostly end at the cap."""
    (tmp_path / "trainer_state.json").write_text((HERE / f"trl_{name}_trainer_state.json").read_text())
    ((reading,), _) = open_path(tmp_path, Told(), NAMES)
    diagnosis = diagnose(reading.log)
    assert [finding.rule for finding in diagnosis.findings] == ([] if name == "dpo" else ["truncation"])
    judged = {"saturation", "stuck-at-start", "learning-rate-zero"} if name == "dpo" else {"dead-groups", "kl-runaway"}
    assert {*judged, "nothing-trains"} <= set(diagnosis.quiet)
    assert diagnosis.steps == ((1, 30, 30) if name == "dpo" else (1, 20, 20))


def test_a_real_log_with_beta_taken_out_of_its_margins_is_found_out(tmp_path: Path) -> None:
    """TRL's batches of four pairs, while margins are small: beta 0.1 is recovered from means."""
    (tmp_path / "trainer_state.json").write_text((HERE / "trl_dpo_trainer_state.json").read_text())
    ((reading,), _) = open_path(tmp_path, Told(), NAMES)
    series = {name: points[:14] for name, points in reading.log.series.items()}
    raw = {**series, "rewards/margins": [(step, value / 0.1) for step, value in series["rewards/margins"]]}
    finding = found(RunLog(raw, "dpo"), "margin-without-beta")
    assert finding is not None and finding.evidence["beta"] == pytest.approx(0.1, rel=0.03)
