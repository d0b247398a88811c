"""Runs as their journals show them: healthy ones of every method, and the same with some metrics replaced."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trueup.health.monitor import Monitor

Metrics = dict[str, float]
Steps = list[Metrics]
Value = float | Callable[[int], float]

LENGTH = 240
"""Steps of every run here."""

ROLLOUT = 4
"""Steps that a rollout serves."""

SETTINGS: Mapping[str, Any] = {
    "optim.steps": LENGTH,
    "optim.learning_rate": 1e-3,
    "optim.schedule": "linear",
    "optim.warmup": 0.1,
    "optim.max_grad_norm": 1.0,
}
"""Settings of every run here."""


@dataclass(frozen=True)
class Report:
    """What the loop tells an observer."""

    step: int
    metrics: Mapping[str, float]


@dataclass
class Notebook:
    """Collects what a monitor writes and says: findings, the steps at which they were recorded, lines."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def append(self, row: Mapping[str, Any]) -> None:
        self.rows.append({name: value for name, value in row.items() if name != "step"})
        self.looks.append(row["step"])

    @property
    def rules(self) -> list[str]:
        return [row["rule"] for row in self.rows]

    @property
    def worst(self) -> dict[str, str]:
        """Rule -> the last severity that it was recorded with."""
        return {row["rule"]: row["severity"] for row in self.rows}


def wobble(step: int) -> float:
    """A deterministic disturbance in -1..1, so that no fixture is a straight line."""
    return ((step * 7919) % 21 - 10) / 10


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def planned_rate(step: int) -> float:
    """The learning rate of SETTINGS: a tenth of the steps up, then straight down; 0 after the end."""
    warmup = LENGTH // 10
    share = step / warmup if step <= warmup else 1 - (step - 1 - warmup) / (LENGTH - warmup)
    return max(0.0, share) * 1e-3


def _update(step: int) -> Metrics:
    moves = {"update/size": 0.25 + 0.75 / step, "update/coarse": 0.0}
    return {"grad_norm": 1.5 + 0.6 * wobble(step), "learning_rate": planned_rate(step), **moves}


def _sft(step: int) -> Metrics:
    loss = 1.0 + 2.0 * math.exp(-step / 40)
    held = {"eval/loss": loss + 0.1, "eval/mean_token_accuracy": 0.6} if step % 20 == 0 else {}
    return {"loss": loss + 0.05 * wobble(step), "entropy": loss, "mean_token_accuracy": 0.8 - 0.1 * loss, **held}


def _reward(step: int) -> Metrics:
    learned = 1 - math.exp(-step / 60)
    accuracy = 0.5 + 0.22 * learned
    held = {"eval/loss": 0.66 - 0.1 * learned, "eval/accuracy": accuracy - 0.03} if step % 20 == 0 else {}
    return {
        "loss": 0.69 - 0.12 * learned + 0.05 * wobble(step),
        "accuracy": accuracy + 0.1 * wobble(step),
        "margin": 0.8 * learned + 0.1 * wobble(step),
        "mean_reward": 0.1 * wobble(step + 3),
        **held,
    }


def _dpo(step: int) -> Metrics:
    """Margins grow slowly, both sides fall, nearly every pair keeps its gradient; beta is 0.1."""
    margin = 0.0 if step == 1 else 0.008 * step + 0.02 * wobble(step)
    chosen = -0.002 * (step - 1)
    accuracy = 0.5 if step == 1 else min(0.75, 0.5 + 0.003 * step) + 0.1 * wobble(step)
    held = {"eval/loss": 0.62, "eval/rewards/accuracies": 0.66} if step % 20 == 0 else {}
    return {
        "loss": softplus(-margin) + 0.002 * step * (step > 1),
        "rewards/chosen": chosen,
        "rewards/rejected": chosen - margin,
        "rewards/margins": margin,
        "rewards/accuracies": accuracy,
        "rewards/ties": float(step == 1),
        "margin/raw": 10 * margin,
        "margin/raw_per_token": 0.001 * step + 0.05 * wobble(step),
        "logps/chosen": -40 + 10 * chosen,
        "gradient_weight/active": 1.0,
        "entropy": 1.8 - 0.002 * step,
        **held,
    }


def _kto(step: int) -> Metrics:
    moved = 0.004 * (step - 1)
    noise = 0.01 * wobble(step) * (step > 1)
    return {
        "loss": 0.5 - 0.3 * moved,
        "rewards/chosen": 0.3 * moved + noise,
        "rewards/rejected": -moved + noise,
        "kl": max(0.0, 0.02 * wobble(step)),
        "entropy": 1.8,
    }


def _orpo(step: int) -> Metrics:
    loss = 1.2 + math.exp(-step / 40)
    return {"loss": loss, "entropy": 1.5, "logps/chosen": -40 + 0.1 * step, "logps/rejected": -45 + 0.02 * step}


def _online(step: int) -> Metrics:
    """Responses score better, drift slowly from the reference, and lose some entropy."""
    fresh = step % ROLLOUT == 1
    metrics = {
        "loss": 0.1 * wobble(step),
        "entropy": 1.8 - 0.003 * step,
        "policy/approxkl": 1e-13 if fresh else 0.004 + 0.002 * wobble(step),
        "policy/ratio": 1.0 + 0.01 * wobble(step),
        "clip_ratio/region_mean": 0.0 if fresh else 0.05,
    }
    if fresh:
        metrics |= {
            "reward": 0.01 * step + 0.1 * wobble(step),
            "reward_std": 1.0,
            "kl/policy_reference_k1": 0.0012 * step + 0.002 * wobble(step),
            "kl/policy_reference_k3": 0.0012 * step + 1e-13,
            "completions/mean_length": 30 + 2 * wobble(step),
            "completions/clipped_ratio": 0.02,
            "sampling/sampling_logp_difference/mean": 2e-6,
        }
    return metrics


def _ppo(step: int) -> Metrics:
    return _online(step) | ({"val/explained_variance": 0.3 + 0.2 * wobble(step)} if step % ROLLOUT == 1 else {})


def _grpo(step: int) -> Metrics:
    fresh = {
        "frac_reward_zero_std": 0.2 + 0.1 * wobble(step),
        "rewards/right/mean": 0.01 * step,
        "rewards/right/std": 1,
    }
    fresh |= {"rewards/form/mean": 0.5 + 0.02 * wobble(step), "rewards/form/std": 0.3}
    return _online(step) | (fresh if step % ROLLOUT == 1 else {})


_METHODS: Mapping[str, Callable[[int], Metrics]] = {
    "sft": _sft,
    "reward": _reward,
    "dpo": _dpo,
    "kto": _kto,
    "orpo": _orpo,
    "ppo": _ppo,
    "grpo": _grpo,
}


def healthy(method: str) -> Steps:
    """A run of a method as it should be."""
    return [_METHODS[method](step) | _update(step) for step in range(1, LENGTH + 1)]


def with_change(steps: Steps, onset: int, changes: Mapping[str, Value]) -> Steps:
    """The run with metrics replaced from ``onset`` on, by a number or a function of the step.

    Metrics that the run has are replaced at the steps that have them; others are added to every step.
    """
    known = {name for metrics in steps for name in metrics}
    out = []
    for step, metrics in enumerate(steps, 1):
        there = {n: v for n, v in changes.items() if step >= onset and (n in metrics or n not in known)}
        out.append(metrics | {name: value(step) if callable(value) else value for name, value in there.items()})
    return out


def watch(
    steps: Steps, method: str | None = None, settings: Mapping[str, Any] | None = None, every: int = 10
) -> Notebook:
    """Run a fresh monitor over a whole run."""
    notebook = Notebook()
    monitor = Monitor(notebook, notebook.said.append, method, {**SETTINGS, **(settings or {})}, every)
    for step, metrics in enumerate(steps, 1):
        monitor(Report(step, metrics))
    monitor.look()
    return notebook
