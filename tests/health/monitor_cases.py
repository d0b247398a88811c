"""For each live rule a run that is ill with it, and one that nearly is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monitor_runs import ROLLOUT, Value, planned_rate, wobble

ONSET = 81
LN2 = math.log(2)
NAN = float("nan")


@dataclass(frozen=True)
class Case:
    """A run that is ill from ``onset`` on, and one that is nearly so.

    Attributes:
        rule: who must say so.
        severity: how grave, in the end.
        method: of the healthy run that is changed.
        ill, near: what is changed.
        onset: first step that is changed.
        also: rules that the same illness may set off.
        settings: of the run.
    """

    rule: str
    severity: str
    method: str
    ill: Mapping[str, Value]
    near: Mapping[str, Value]
    onset: int = ONSET
    also: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)


def rising(start: float, slope: float, noise: float = 0.0) -> Value:
    """A line from the onset on, with a wobble."""
    return lambda step: start + slope * (step - ONSET) + noise * wobble(step)


def only_at(step: int, value: float, otherwise: float) -> Value:
    return lambda now: value if now == step else otherwise


def fresh(value: float, otherwise: float) -> Value:
    """One value where a rollout begins, another in the updates that follow."""
    return lambda step: value if step % ROLLOUT == 1 else otherwise


def _logps(training: float, held: float) -> dict[str, Value]:
    """Log-probabilities of both sides whose difference scatters around these values."""
    return {
        "logps/chosen": lambda step: -40 + training + wobble(step),
        "logps/rejected": -40.0,
        "eval/logps/chosen": -40 + held,
        "eval/logps/rejected": -40.0,
        "eval/num_examples": 100.0,
    }


UNMOVED: dict[str, Value] = {"margin/raw": 0.0, "eval/margin/raw": 0.0}
"""Training has not moved the difference yet: it is the reference's."""
MOVED: dict[str, Value] = {
    "rewards/chosen": lambda step: 0.005 + 0.01 * wobble(step),
    "rewards/rejected": lambda step: -0.005 + 0.01 * wobble(step),
    "eval/rewards/chosen": 0.005,
    "eval/rewards/rejected": -0.005,
}
"""Training has moved it by a tenth of a nat."""


CUTS = frozenset({"truncation", "truncation-rise", "masked-responses"})

NUMBERS = (
    Case(
        "not-finite",
        "fatal",
        "sft",
        {"grad_norm": only_at(ONSET, NAN, 1.0)},
        {"grad_norm": 1e30},
        also=frozenset({"gradient-growth"}),
    ),
    Case(
        "not-finite",
        "fatal",
        "grpo",
        {"reward": only_at(ONSET, math.inf, 1.0)},
        {"reward": 1e30},
        also=frozenset({"reward-follows-length"}),
    ),
    Case("not-finite", "warning", "grpo", {"rewards/right/std": NAN}, {"rewards/right/std": 0.1}),
    Case(
        "loss-zero",
        "fatal",
        "sft",
        {"loss": 0.0, "grad_norm": 0.0},
        {"loss": 0.0, "grad_norm": 0.1},
        also=frozenset({"nothing-trains"}),
    ),
    Case("weights-rounded", "warning", "dpo", {"update/coarse": 1.0}, {"update/coarse": 0.3}),
)
OPTIMISATION = (
    Case(
        "nothing-trains",
        "fatal",
        "ppo",
        {"grad_norm": 0.0},
        {"grad_norm": lambda step: 0.1 * (step % 2)},
        onset=1,
        also=frozenset({"ratio-degenerate"}),
    ),
    Case(
        "update-swallowed",
        "warning",
        "sft",
        {"update/size": 0.02},
        {"update/size": lambda step: 0.02 if step > 1 else 0.9},
        onset=1,
    ),
    Case(
        "learning-rate-zero",
        "fatal",
        "sft",
        {"learning_rate": 0.0},
        {"learning_rate": planned_rate},
        also=frozenset({"learning-rate-schedule"}),
    ),
    Case(
        "learning-rate-schedule",
        "warning",
        "sft",
        {"learning_rate": lambda step: planned_rate(2 * step)},
        {"learning_rate": lambda step: planned_rate(max(1, step - 1))},
        onset=1,
        also=frozenset({"learning-rate-zero"}),
    ),
    Case(
        "loss-spike", "warning", "sft", {"loss": only_at(ONSET + 5, 9.0, 1.3)}, {"loss": only_at(ONSET + 5, 2.0, 1.3)}
    ),
    Case("loss-divergence", "warning", "sft", {"loss": rising(1.3, 0.01)}, {"loss": rising(1.3, 0.004)}),
    Case(
        "loss-divergence",
        "fatal",
        "sft",
        {"loss": rising(1.3, 0.12)},
        {"loss": rising(1.3, 0.004)},
        also=frozenset({"loss-spike", "loss-above-start"}),
    ),
    Case("loss-above-start", "warning", "sft", {"loss": lambda step: 4.8}, {"loss": lambda step: 4.2}, onset=2),
    Case(
        "loss-above-start",
        "fatal",
        "orpo",
        {"loss": lambda step: 9.0 + 0.1 * wobble(step)},
        {"loss": lambda step: 3.0 + wobble(step)},
        onset=2,
    ),
    Case(
        "gradient-growth",
        "warning",
        "grpo",
        {"grad_norm": 18.0},
        {"grad_norm": 9.0},
    ),
    Case(
        "gradient-clipped",
        "warning",
        "grpo",
        {"grad_norm": 1.0},
        {"grad_norm": lambda step: 1.0 if step % 5 else 5e-4},
        onset=1,
        settings={"optim.max_grad_norm": 1e-3},
    ),
    Case(
        "hot-update",
        "warning",
        "dpo",
        {
            "rewards/chosen": lambda step: -0.5 * min(step - 1, 20),
            "logps/chosen": lambda step: -40 - 5 * min(step - 1, 20),
        },
        {
            "rewards/chosen": lambda step: -0.15 * min(step - 1, 20),
            "logps/chosen": lambda step: -40 - 1.5 * min(step - 1, 20),
        },
        onset=2,
    ),
    Case(
        "hot-update",
        "fatal",
        "dpo",
        {
            "rewards/chosen": lambda step: -1.5 * min(step - 1, 20),
            "logps/chosen": lambda step: -40 - 15 * min(step - 1, 20),
        },
        {
            "rewards/chosen": lambda step: -0.15 * min(step - 1, 20),
            "logps/chosen": lambda step: -40 - 1.5 * min(step - 1, 20),
        },
        onset=2,
        also=frozenset({"displacement"}),
    ),
)
PAIRS = (
    Case(
        "saturation",
        "warning",
        "dpo",
        {"gradient_weight/active": 0.1, "rewards/margins": 9.0, "margin/raw": 90.0},
        {"gradient_weight/active": 0.35},
    ),
    Case(
        "saturation",
        "fatal",
        "dpo",
        {"gradient_weight/active": 0.1, "rewards/margins": 11.0, "margin/raw": 110.0},
        {"gradient_weight/active": 0.35, "rewards/margins": 11.0, "margin/raw": 110.0},
    ),
    Case(
        "margin-per-token",
        "warning",
        "dpo",
        {"margin/raw_per_token": 0.7, "rewards/chosen": -2.0},
        {"margin/raw_per_token": 0.45, "rewards/chosen": -2.0},
    ),
    Case("margin-per-token", "fatal", "dpo", {"margin/raw_per_token": -2.5}, {"margin/raw_per_token": -0.45}),
    Case("identical-samples", "warning", "dpo", {"pairs/identical": 0.25}, {}),
    Case("identical-samples", "note", "dpo", {"pairs/identical": 0.0625}, {}),
    Case(
        "saturation",
        "note",
        "dpo",
        {"gradient_weight/active": 0.1, "eval/rewards/accuracies": 0.97},
        {"gradient_weight/active": 0.35, "eval/rewards/accuracies": 0.97},
    ),
    Case(
        "tied-pairs",
        "warning",
        "dpo",
        {"rewards/ties": lambda step: 0.06 * (step % 4 == 0)},
        {"rewards/ties": only_at(ONSET, 0.06, 0.0)},
    ),
    Case("tied-pairs", "fatal", "dpo", {"rewards/ties": 0.2}, {"rewards/ties": 0.004}),
    Case(
        "overconfident",
        "warning",
        "dpo",
        {"eval/loss": 0.85, "eval/rewards/accuracies": 0.78},
        {"eval/loss": 0.68, "eval/rewards/accuracies": 0.78},
    ),
    Case(
        "displacement",
        "warning",
        "dpo",
        {"rewards/chosen": -3.0, "logps/chosen": -70.0, "entropy": 3.5},
        {"rewards/chosen": -3.0, "logps/chosen": -70.0, "entropy": 2.0},
    ),
)
STANDING = {
    "rewards/chosen": 0.0,
    "rewards/rejected": 0.0,
    "rewards/margins": 0.0,
    "margin/raw": 0.0,
    "loss": LN2,
    "rewards/accuracies": 0.0,
}
COURSE = (
    Case("stuck-at-start", "fatal", "dpo", STANDING, STANDING | {"rewards/chosen": 1e-4}, onset=1),
    Case(
        "stuck-at-start",
        "fatal",
        "kto",
        {"rewards/chosen": 0.0, "rewards/rejected": 0.0},
        {"rewards/chosen": 0.0, "rewards/rejected": 1e-4},
        onset=1,
    ),
    Case(
        "off-reference-start",
        "warning",
        "dpo",
        {"rewards/chosen": only_at(1, -0.9, -0.2)},
        {"rewards/chosen": only_at(1, -0.05, -0.2)},
        onset=1,
    ),
    Case(
        "instant-zero-loss",
        "note",
        "dpo",
        {"loss": lambda step: LN2 if step < 4 else 0.02, "rewards/margins": 5.0, "margin/raw": 50.0},
        {"loss": lambda step: LN2 if step < 4 else 0.2, "rewards/margins": 5.0, "margin/raw": 50.0},
        onset=1,
    ),
    Case(
        "instant-zero-loss",
        "warning",
        "dpo",
        {
            "loss": lambda step: LN2 if step < 4 else 0.02,
            "rewards/margins": 5.0,
            "margin/raw": 50.0,
            "margin/raw_per_token": 0.8,
            "rewards/chosen": lambda step: -4.0 * (step > 20),
        },
        {"loss": lambda step: LN2 if step < 30 else 0.02, "rewards/margins": 5.0, "margin/raw": 50.0},
        onset=1,
        also=frozenset({"margin-per-token"}),
    ),
    Case(
        "wrong-way",
        "fatal",
        "dpo",
        {
            "rewards/margins": rising(-0.1, -0.01, 0.02),
            "margin/raw": rising(-1.0, -0.1, 0.2),
            "rewards/accuracies": 0.2,
        },
        {"rewards/margins": rising(0, 0, 0.1), "margin/raw": rising(0, 0, 1.0)},
        onset=2,
        also=frozenset({"loss-margin", "loss-divergence"}),
    ),
    Case(
        "wrong-way",
        "warning",
        "dpo",
        {
            "rewards/margins": rising(-0.1, -0.001, 0.02),
            "margin/raw": rising(-1.0, -0.01, 0.2),
            "rewards/accuracies": 0.48,
        },
        {"rewards/margins": rising(0, 0, 0.1), "margin/raw": rising(0, 0, 1.0)},
        also=frozenset({"loss-margin"}),
    ),
    Case(
        "wrong-way",
        "fatal",
        "kto",
        {"rewards/chosen": rising(-0.5, 0, 0.01), "rewards/rejected": rising(0.5, 0, 0.02)},
        {"rewards/chosen": rising(-0.5, 0, 0.01), "rewards/rejected": rising(-0.6, 0, 0.01)},
        onset=2,
    ),
    Case(
        "wrong-way",
        "fatal",
        "reward",
        {"margin": rising(-0.5, 0, 0.05), "accuracy": 0.3},
        {"margin": rising(0.0, 0, 0.5)},
        also=frozenset({"held-out-gap", "rm-not-learning"}),
    ),
    Case(
        "margin-units",
        "fatal",
        "dpo",
        {"margin/raw": 3.0, "rewards/margins": 0.03},
        {"margin/raw": 3.0, "rewards/margins": 0.3001},
        also=frozenset({"loss-margin"}),
        settings={"preference.beta": 0.1},
    ),
    Case(
        "margin-units",
        "fatal",
        "dpo",
        {"margin/raw": 3.0, "rewards/margins": 3.0},
        {"margin/raw": 3.0, "rewards/margins": 0.3},
    ),
    Case(
        "margin-sides",
        "fatal",
        "dpo",
        {"rewards/margins": 0.5, "rewards/chosen": 0.1, "rewards/rejected": -0.2},
        {"rewards/margins": 0.301, "rewards/chosen": 0.1, "rewards/rejected": -0.2},
        also=frozenset({"margin-units"}),
    ),
    Case(
        "loss-margin",
        "fatal",
        "dpo",
        {"loss": 0.4, "rewards/margins": 0.1, "margin/raw": 1.0},
        {"loss": 0.65, "rewards/margins": 0.1, "margin/raw": 1.0},
    ),
)
HELD_OUT = (
    Case(
        "held-out-gap",
        "warning",
        "dpo",
        {"rewards/accuracies": 0.95, "eval/rewards/accuracies": 0.6},
        {"rewards/accuracies": 0.75, "eval/rewards/accuracies": 0.64},
    ),
    Case(
        "held-out-gap",
        "warning",
        "reward",
        {"accuracy": 0.95, "eval/accuracy": 0.6},
        {"accuracy": 0.75, "eval/accuracy": 0.64},
    ),
    Case(
        "held-out-opposite",
        "warning",
        "dpo",
        {**_logps(-4.0, 4.0), **UNMOVED},
        {**_logps(3.0, 4.0), **UNMOVED},
        onset=1,
        also=frozenset({"margin-sides", "margin-units"}),
        settings={"optim.batch_size": 16},
    ),
    Case(
        "held-out-opposite",
        "warning",
        "orpo",
        _logps(0.0, 4.0),
        _logps(4.0, 4.0),
        onset=1,
        settings={"optim.batch_size": 16},
    ),
    Case(
        "held-out-opposite",
        "warning",
        "kto",
        {**_logps(-4.0, 4.0), **MOVED},
        {**_logps(-4.0, 0.2), **MOVED},  # the sides hardly differ in held-out rows
        onset=1,
        settings={"optim.batch_size": 16, "kto.beta": 0.1},
    ),
    Case(
        "held-out-below-chance",
        "warning",
        "dpo",
        {"rewards/accuracies": 0.7, "eval/rewards/accuracies": 0.44, "eval/num_examples": 400.0},
        {"rewards/accuracies": 0.7, "eval/rewards/accuracies": 0.44, "eval/num_examples": 200.0},
        also=frozenset({"held-out-gap"}),
        settings={"optim.batch_size": 16},
    ),
    Case(
        "held-out-below-chance",
        "warning",
        "reward",
        {"accuracy": 0.7, "eval/accuracy": 0.44, "eval/num_examples": 400.0},
        {"accuracy": 0.52, "eval/accuracy": 0.44, "eval/num_examples": 400.0},
        also=frozenset({"held-out-gap", "rm-not-learning"}),
        settings={"optim.batch_size": 16},
    ),
    Case("held-out-loss", "warning", "sft", {"eval/loss": rising(1.5, 0.01)}, {"eval/loss": rising(1.36, 0.001)}),
    Case(
        "memorised",
        "note",
        "sft",
        {"mean_token_accuracy": 0.995, "eval/mean_token_accuracy": NAN},
        {"mean_token_accuracy": 0.97},
        also=frozenset({"not-finite"}),
    ),
    Case(
        "memorised",
        "warning",
        "sft",
        {"mean_token_accuracy": 0.995},
        {"mean_token_accuracy": 0.995, "eval/mean_token_accuracy": 0.96},
    ),
)
REWARD_MODEL = (
    Case(
        "rm-not-learning",
        "warning",
        "reward",
        {"accuracy": lambda step: 0.5 + 0.1 * wobble(step)},
        {"accuracy": lambda step: 0.56 + 0.1 * wobble(step)},
        onset=1,
    ),
    Case("score-drift", "warning", "reward", {"mean_reward": rising(0, 0.2)}, {"mean_reward": rising(0, 0.03)}),
)
ROLLOUTS = (
    Case(
        "negative-kl",
        "warning",
        "ppo",
        {"kl/policy_reference_k1": rising(-0.01, 0, 0.012)},
        {"kl/policy_reference_k1": rising(0.0, 0, 0.02)},
    ),
    Case(
        "negative-kl",
        "fatal",
        "grpo",
        {"kl/policy_reference_k1": rising(-0.5, 0, 0.01)},
        {"kl/policy_reference_k1": -0.0005},
    ),
    Case("kl-runaway", "warning", "grpo", {"kl/policy_reference_k3": 0.6}, {"kl/policy_reference_k3": 0.4}),
    Case("kl-runaway", "fatal", "ppo", {"kl/policy_reference_k3": 1.4}, {"kl/policy_reference_k3": 0.4}),
    Case(
        "kl-runaway",
        "warning",
        "grpo",
        {"kl/policy_reference_k3": 1.4},
        {"kl/policy_reference_k3": 0.4},
        settings={"grpo.variant": "dapo"},
    ),
    Case(
        "kl-runaway",
        "fatal",
        "grpo",
        {"kl/policy_reference_k3": 1.4},
        {"kl/policy_reference_k3": 0.4},
        settings={"grpo.variant": "dapo", "grpo.kl_coef": 0.1},
    ),
    Case(
        "kl-absent",
        "fatal",
        "grpo",
        {"kl/policy_reference_k3": 1e-13, "kl/policy_reference_k1": 1e-9},
        {"kl/policy_reference_k3": 1e-7},
        onset=1,
    ),
    Case("entropy-collapse", "warning", "grpo", {"entropy": 0.7}, {"entropy": 1.0}),
    Case("entropy-collapse", "fatal", "ppo", {"entropy": 0.2}, {"entropy": 1.0}),
    Case(
        "sampler-mismatch",
        "warning",
        "ppo",
        {"sampling/sampling_logp_difference/mean": 0.05},
        {"sampling/sampling_logp_difference/mean": 0.008},
    ),
    Case(
        "sampler-mismatch",
        "fatal",
        "grpo",
        {"sampling/sampling_logp_difference/mean": 0.3},
        {"sampling/sampling_logp_difference/mean": 0.008},
    ),
)
LENGTHS, CUT = "completions/mean_length", "completions/clipped_ratio"
RESPONSES = (
    Case(
        "length-drift", "warning", "grpo", {LENGTHS: 70.0}, {LENGTHS: 50.0}, also=frozenset({"reward-follows-length"})
    ),
    Case("length-drift", "warning", "ppo", {LENGTHS: 10.0}, {LENGTHS: 20.0}),
    Case("truncation", "warning", "grpo", {CUT: 0.6}, {CUT: 0.45}, also=CUTS),
    Case("truncation", "fatal", "ppo", {CUT: 0.99}, {CUT: 0.45}, onset=1),
    Case("truncation-rise", "warning", "grpo", {CUT: 0.2}, {CUT: 0.09}),
    Case(
        "masked-responses",
        "warning",
        "grpo",
        {CUT: 0.6, "rollout/unused_truncated": 30.0},
        {CUT: 0.3, "rollout/unused_truncated": 15.0},
        onset=1,
        also=CUTS,
    ),
)
REWARDS = (
    Case(
        "reward-falling",
        "fatal",
        "grpo",
        {"reward": rising(-1.0, -0.02, 0.05)},
        {"reward": rising(0.0, -0.001, 0.1)},
        onset=21,
    ),
    Case(
        "reward-falling",
        "warning",
        "ppo",
        {"reward": rising(-0.4, 0, 0.02)},
        {"reward": rising(-0.4, 0, 0.02), "kl/policy_reference_k3": 1e-5},
        onset=21,
    ),
    Case(
        "dead-groups",
        "warning",
        "grpo",
        {"frac_reward_zero_std": 0.8, "reward": 0.0},
        {"frac_reward_zero_std": 0.7, "reward": 0.0},
    ),
    Case(
        "dead-groups",
        "note",
        "grpo",
        {"frac_reward_zero_std": 0.8, "reward": lambda step: 2.0 + 0.1 * wobble(step)},
        {"frac_reward_zero_std": 0.7, "reward": lambda step: 2.0 + 0.1 * wobble(step)},
    ),
    Case(
        "dead-groups",
        "fatal",
        "grpo",
        {"frac_reward_zero_std": 1.0, "reward": lambda step: 0.0},
        {"frac_reward_zero_std": 0.45},
    ),
    Case(
        "reward-follows-length",
        "warning",
        "ppo",
        {LENGTHS: lambda step: 30 + 0.3 * step, "reward": lambda step: 0.01 * step},
        {LENGTHS: lambda step: 30 + 0.05 * step, "reward": lambda step: 0.01 * step},
        onset=1,
        also=frozenset({"length-drift"}),
    ),
    Case(
        "reward-part-falls",
        "warning",
        "grpo",
        {"rewards/form/mean": rising(0.3, -0.002, 0.01)},
        {"rewards/form/mean": rising(0.47, 0, 0.01)},
    ),
    Case(
        "reward-part-constant",
        "warning",
        "grpo",
        {"rewards/form/std": 0.0, "rewards/form/mean": 0.0},
        {"rewards/form/std": lambda step: 0.0 if step > 20 else 0.1},
        onset=1,
    ),
    Case(
        "reward-part-constant",
        "note",
        "grpo",
        {"rewards/form/std": 0.0, "rewards/form/mean": 1.0},
        {"rewards/form/std": lambda step: 0.0 if step > 20 else 0.1, "rewards/form/mean": 1.0},
        onset=1,
    ),
)
UPDATES = (
    Case("ratio-degenerate", "warning", "grpo", {"policy/approxkl": 1e-14}, {"policy/approxkl": fresh(1e-14, 1e-8)}),
    Case("ratio-blow-up", "warning", "ppo", {"policy/approxkl": 0.1}, {"policy/approxkl": 0.04}),
    Case("ratio-blow-up", "warning", "ppo", {"clip_ratio/region_mean": 0.5}, {"clip_ratio/region_mean": 0.25}),
    Case("ratio-blow-up", "fatal", "grpo", {"policy/ratio": 40.0}, {"policy/ratio": 4.0}),
    Case(
        "kl-coefficient",
        "fatal",
        "ppo",
        {"objective/kl_coef": 0.0},
        {"objective/kl_coef": 0.1},
        onset=1,
        settings={"ppo.kl_coef": 0.1},
    ),
    Case(
        "critic-useless", "warning", "ppo", {"val/explained_variance": -0.4}, {"val/explained_variance": -0.1}, onset=1
    ),
    Case(
        "critic-useless",
        "warning",
        "ppo",
        {"val/explained_variance": lambda step: 1e-7 * wobble(step)},
        {"val/explained_variance": lambda step: 1e-3 * wobble(step)},
        onset=1,
    ),
)
CASES = (*NUMBERS, *OPTIMISATION, *PAIRS, *COURSE, *HELD_OUT, *REWARD_MODEL, *ROLLOUTS, *RESPONSES, *REWARDS, *UPDATES)
