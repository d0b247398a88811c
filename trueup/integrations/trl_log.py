"""What TRL's trainers log and are set to, as the monitor's rules know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trueup.health.doctor import NAMES
from trueup.health.monitor import EVERY
from trueup.health.readers.found import Found
from trueup.health.readers.translate import Told, translate
from trueup.health.rule import RunLog

METHODS: Mapping[str, str] = {
    "DPOConfig": "dpo",
    "KTOConfig": "kto",
    "RewardConfig": "reward",
    "SFTConfig": "sft",
    "GRPOConfig": "grpo",
    "RLOOConfig": "rloo",
    "ORPOConfig": "orpo",
    "OnlineDPOConfig": "online-dpo",
}
"""TRL's configuration, or a class that a configuration is derived from -> the method whose rules are asked."""

_NAMED = ("learning_rate", "max_grad_norm", "beta", "loss_type", "label_smoothing", "num_generations")
"""Arguments that the table of foreign names knows."""


@dataclass(frozen=True)
class Line:
    """One line of a log, under our names."""

    step: int
    metrics: Mapping[str, float]


def method_of(args: Any) -> str | None:
    """The method that a trainer's arguments are for; None if they are nobody's that we know."""
    return next((METHODS[kind.__name__] for kind in type(args).__mro__ if kind.__name__ in METHODS), None)


def settings_of(args: Any, steps: int) -> dict[str, Any]:
    """What rules may know of a trainer's arguments, by our dotted keys.

    Args:
        args: TRL's configuration.
        steps: of the whole run.
    """
    given = {name: getattr(args, name) for name in _NAMED if getattr(args, name, None) is not None}
    ours = dict(_translated({}, method_of(args), given).settings)
    ours["optim.steps"] = steps
    if getattr(args, "f_divergence_type", "reverse_kl") != "reverse_kl":
        ours["preference.divergence"] = str(args.f_divergence_type)
    if getattr(args, "use_weighting", False):
        ours["preference.weighting"] = "wpo"
    if getattr(args, "sync_ref_model", False):
        ours["preference.sync_every"] = args.ref_model_sync_steps
    if getattr(args, "importance_sampling_level", "token") == "sequence":
        ours["grpo.variant"] = "gspo"
    return ours


def line_of(row: Mapping[str, Any], step: int, method: str | None) -> Line:
    """A row that a trainer logs, under our names.

    What is no number is left out, and so is None: that is how TRL logs a mean over nothing.
    """
    numbers = {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
    series = _translated(numbers, method, {}).series
    return Line(step, {name: points[0][1] for name, points in series.items()})


def stride_of(args: Any) -> int:
    """Steps between two looks: about as many as in our own runs, and a multiple of those between two lines."""
    every = int(args.logging_steps) if str(args.logging_strategy).endswith("steps") and args.logging_steps >= 1 else 1
    return every * -(-EVERY // every) if every > 1 else (EVERY if args.logging_steps == 1 else 1)


def _translated(numbers: Mapping[str, float], method: str | None, settings: Mapping[str, Any]) -> RunLog:
    series = {name: [(0, value)] for name, value in numbers.items()}
    found = Found(series, "", "trl", method, settings)
    return translate(found, "a trainer's log", "live", Told(), NAMES).log
