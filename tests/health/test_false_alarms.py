"""The monitor stays quiet on sound runs, and on what looks ill and is not (the catalogue's false-alarm traps)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_runs import ROLLOUT, Steps, Value, healthy, softplus, watch, with_change, wobble

LN2 = math.log(2)
METHODS = ("sft", "reward", "dpo", "kto", "orpo", "ppo", "grpo")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("every", [1, 10])
def test_a_healthy_run_is_left_in_peace(method: str, every: int) -> None:
    assert watch(healthy(method), method, every=every).rows == []


@pytest.mark.parametrize("method", METHODS)
def test_so_it_is_where_nobody_said_what_it_is(method: str) -> None:
    assert watch(healthy(method), None, dict.fromkeys(("optim.steps", "optim.max_grad_norm"))).rows == []


def agreeing(steps: Steps) -> Steps:
    """The steps with a rejected side that margin and chosen side leave it."""
    named = ("rewards/margins", "rewards/chosen", "rewards/rejected")
    return [
        {**step, named[2]: step[named[1]] - step[named[0]]} if all(name in step for name in named) else step
        for step in steps
    ]


@dataclass(frozen=True)
class Trap:
    """A run that a naive monitor would accuse."""

    method: str
    changes: Mapping[str, Value]
    onset: int = 2
    settings: Mapping[str, Any] = field(default_factory=dict)


def easy_margin(step: int) -> float:
    """Up to 4.2 within a third of the run."""
    return min(4.2, 0.05 * step) + 0.05 * wobble(step)


TRAPS = {
    "chosen rewards are negative and fall, as after SFT on the chosen answers": Trap(
        "dpo",
        {
            "rewards/chosen": lambda step: -0.007 * step,  # 17 of 40 nats at the end, more than Zephyr's 40 %
            "rewards/rejected": lambda step: -0.015 * step,
            "logps/chosen": lambda step: -40 - 0.07 * step,
        },
    ),
    "GRPO's loss is 0 and its gradient is not": Trap("grpo", {"loss": lambda step: 1e-9 * wobble(step)}, onset=1),
    "GRPO's loss is exactly 0 where it is rounded": Trap("grpo", {"loss": 0.0, "grad_norm": 0.09}, onset=1),
    "single KL estimates are slightly negative": Trap(
        "ppo", {"kl/policy_reference_k1": lambda step: 0.001 + 0.004 * wobble(step)}
    ),
    "rewards are not exactly 0 at step 0, for the dtypes differ": Trap(
        "dpo", {"rewards/chosen": lambda step: 0.03, "rewards/rejected": lambda step: -0.02}, onset=1
    ),
    "log 2 of float16": Trap("dpo", {"loss": lambda step: 0.693359 if step < 4 else softplus(-0.008 * step) + 0.01}, 1),
    "log 2 of bfloat16": Trap(
        "dpo", {"loss": lambda step: 0.691406 if step < 25 else softplus(-0.008 * step) + 0.01}, 1
    ),
    "accuracy 0 and margin 0, for policy and reference are still the same": Trap(
        "dpo",
        {
            name: lambda step, name=name: 0.0 if step <= 15 else healthy("dpo")[step - 1][name]
            for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "margin/raw", "rewards/accuracies")
        },
        onset=1,
    ),
    "a very low loss on easy pairs": Trap(
        "dpo",
        {
            "loss": lambda step: softplus(-easy_margin(step)) + 0.001,
            "rewards/margins": easy_margin,
            "margin/raw": lambda step: 10 * easy_margin(step),
            "rewards/chosen": lambda step: 0.3 * easy_margin(step),
            "rewards/rejected": lambda step: -0.7 * easy_margin(step),
            "rewards/accuracies": 1.0,
            "eval/rewards/accuracies": 0.99,
            "eval/loss": 0.03,
            "gradient_weight/active": lambda step: 1.0 if step < 80 else 0.65,
            "margin/raw_per_token": lambda step: 0.1 * easy_margin(step),
        },
    ),
    "scores of a reward model that are far from 0 and stay there": Trap(
        "reward", {"mean_reward": lambda step: -30 + 0.3 * wobble(step)}, onset=1
    ),
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS.keys())
def test_odd_but_healthy_runs_are_left_in_peace(trap: Trap) -> None:
    steps = with_change(healthy(trap.method), trap.onset, trap.changes)
    for every in (1, 10):
        assert watch(agreeing(steps), trap.method, trap.settings, every).rows == []


ODD: dict[str, tuple[str, Steps, Mapping[str, Any]]] = {
    "a moving reference sets margins and loss back": (
        "dpo",
        with_change(
            healthy("dpo"),
            2,
            {
                "rewards/margins": lambda step: 0.05 * (step % 20),
                "margin/raw": lambda step: 0.5 * (step % 20),
                "rewards/ties": lambda step: float(step % 20 == 0),
                "loss": lambda step: softplus(-0.05 * (step % 20)) + 0.01,
            },
        ),
        {"preference.sync_every": 20, "preference.loss": "sigmoid"},
    ),
    "one update a rollout: the ratio is 1 by right": (
        "grpo",
        [m | {"policy/approxkl": 1e-14, "policy/ratio": 1.0} for m in healthy("grpo") if "reward" in m],
        {"optim.steps": None},
    ),
    "pairs one at a time: accuracy is 0 or 1": (
        "dpo",
        with_change(healthy("dpo"), 2, {"rewards/accuracies": lambda step: float(step % 5 > 1)}),
        {},
    ),
    "every gradient is clipped, to less by half": ("dpo", with_change(healthy("dpo"), 1, {"grad_norm": 4.0}), {}),
    "no KL penalty, no reference": (
        "grpo",
        [{n: v for n, v in m.items() if not n.startswith("kl/")} for m in healthy("grpo")],
        {"grpo.variant": "dapo"},
    ),
    "the last of the rates is 0": ("sft", with_change(healthy("sft"), 240, {"learning_rate": 0.0}), {}),
    "one group's reward part is solved in the end": (
        "grpo",
        with_change(healthy("grpo"), 150, {"rewards/form/std": 0.0, "rewards/form/mean": 1.0}),
        {},
    ),
}


@pytest.mark.parametrize(("method", "steps", "changed"), ODD.values(), ids=ODD.keys())
def test_more_that_is_odd_and_healthy(method: str, steps: Steps, changed: Mapping[str, Any]) -> None:
    assert watch(agreeing(steps), method, changed).rows == []


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(METHODS), st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_a_healthy_run_stays_one_when_its_numbers_are_shaken(method: str, seed: int, size: float) -> None:
    """Noise in proportion to what the values scatter by anyway raises nothing beyond a note."""
    steps = healthy(method)
    for step, metrics in enumerate(steps, 1):
        for name in ("loss", "grad_norm", "entropy", "reward", "completions/mean_length", "margin", "rewards/chosen"):
            if step > ROLLOUT and name in metrics:
                metrics[name] *= 1 + 0.03 * size * wobble(step * 31 + seed + len(name))
    assert set(watch(steps, method).worst.values()) <= {"note"}
