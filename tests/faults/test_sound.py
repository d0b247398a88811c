"""What counts as a healthy run is decided by its own result, whatever was found in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from faults.healthy import FIT, REPORT, Scenario
from faults.lab import Outcome
from faults.sound import Begun, sifted, what_ails

BEGUN = Begun(gold=1.4, log_likelihood=-1.0)
WARNED = {"rule": "kl-runaway", "severity": "warning", "first_step": 9, "evidence": {}}


def ails(method: str, measures: dict[str, float], metrics: list[dict[str, Any]] | None = None, **more: Any) -> str:
    scenario = Scenario("odd", method, 1, more.pop("settings", {}), None, **more)
    return what_ails(scenario, Outcome(method, 1, measures=measures, metrics=metrics or []), BEGUN)


def paid(*rewards: float) -> list[dict[str, Any]]:
    """Five rollouts at each level, with a scatter of 0.1."""
    return [
        {"step": 5 * place + number, "reward": level + 0.05 * (number % 3 - 1)}
        for place, level in enumerate(rewards)
        for number in range(1, 6)
    ]


@pytest.mark.parametrize(
    ("method", "better", "worse"),
    [
        ("sft", {"gold": -0.3, "log-likelihood": -0.9}, {"gold": -0.3, "log-likelihood": -1.1}),
        ("dpo", {"gold": 1.2, "pairs": 0.6}, {"gold": 1.2, "pairs": 0.5}),
        ("kto", {"gold": 1.2, "pairs": 0.6}, {"gold": 1.0, "pairs": 0.6}),
    ],
)
def test_a_result_must_be_better_than_the_start(method: str, better: dict[str, float], worse: dict[str, float]) -> None:
    assert not ails(method, better) and ails(method, worse)


@pytest.mark.parametrize(("accuracy", "healthy"), [(0.56, False), (0.62, True)])
def test_a_reward_model_must_beat_a_coin_on_its_own_pairs(accuracy: float, healthy: bool) -> None:
    """Of 120 pairs a coin has 0.5 +- 0.046, of 1,200 a third. The laboratory's own pairs say nothing of easy ones."""
    few, many = ([{"step": 9, "eval/accuracy": accuracy, "eval/num_examples": n}] for n in (120.0, 1200.0))
    assert (not ails("reward", {"accuracy": 0.5}, few)) == healthy
    assert not ails("reward", {"accuracy": 0.5}, many)


def test_online_the_reward_must_rise_or_the_true_one() -> None:
    assert not ails("grpo", {"gold": 1.3}, paid(0.2, 0.5))
    assert ails("grpo", {"gold": 1.3}, paid(0.5, 0.2))
    assert not ails("grpo", {"gold": 1.6}, paid(0.5, 0.48))
    assert ails("grpo", {"gold": 1.0}, paid(0.2, 0.5)) == "the true reward fell by 0.40"
    assert not ails("grpo", {"gold": 0.2}, paid(0.2, 0.5), settings={"rollout.reward": "own.py:own"})


def test_a_policy_that_is_to_stay_need_only_not_be_worse() -> None:
    assert not ails("ppo", {"gold": 1.3}, paid(0.5, 0.48), held=True)
    assert ails("ppo", {"gold": 1.3}, paid(0.5, 0.48))
    assert ails("ppo", {"gold": 1.3}, paid(0.5, 0.2), held=True)


def test_quiet_runs_are_withdrawn_as_accused_ones_are() -> None:
    scenario = Scenario("odd", "dpo", 1, {}, None)
    ill = {"gold": 0.5, "pairs": 0.6}
    runs = [(scenario, Outcome("dpo", 1, found, measures=ill)) for found in ([], [WARNED])]
    healthy, withdrawn = sifted(runs, BEGUN)
    assert not healthy and [line["found"] for line in withdrawn] == [[], ["kl-runaway"]]


def test_an_error_is_no_way_out() -> None:
    """A healthy run that was stopped has no result; it stays among those that alarms are counted on."""
    stopped = Outcome("dpo", 1, error="Interrupted: stopped after step 6")
    assert sifted([(Scenario("odd", "dpo", 1, {}, None), stopped)], BEGUN)[1] == []


def test_no_run_is_in_both_sets() -> None:
    seeds = [{(scenario.method, scenario.seed) for scenario in runs} for runs in (FIT, REPORT)]
    assert not seeds[0] & seeds[1]
    assert [len(FIT), len(REPORT)] == [len(one) for one in seeds]
