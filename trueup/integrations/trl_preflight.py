"""All checks of a TRL trainer before its first step, on its own batches, leaving everything as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from trueup.integrations.trl_bench import MEANS, Bench, bench_of, borrowed
from trueup.integrations.trl_forward import (
    COMPANY,
    PADDING,
    REPEAT,
    check_company,
    check_padding,
    check_repeat,
)
from trueup.integrations.trl_gradient import DIRECTION, RATE, REACH, check_direction, check_rate, check_reach
from trueup.integrations.trl_log import method_of
from trueup.integrations.trl_reference import IDENTITY, STORAGE, check_identity, check_storage
from trueup.integrations.trl_rows import (
    BEGIN,
    LENGTHS,
    MASK,
    PAIRS,
    check_beginnings,
    check_lengths,
    check_mask,
    check_pairs,
)
from trueup.preflight.outcome import Outcome, Report, attempt, skipped
from trueup.runtime.clock import seconds

PROBES: Sequence[tuple[str, Callable[[Bench], Outcome | None]]] = (
    (MASK, check_mask),
    (BEGIN, check_beginnings),
    (PAIRS, check_pairs),
    (LENGTHS, check_lengths),
    (RATE, check_rate),
    (STORAGE, check_storage),
    (IDENTITY, check_identity),
    (REPEAT, check_repeat),
    (COMPANY, check_company),
    (PADDING, check_padding),
    (REACH, check_reach),
    (DIRECTION, check_direction),
)
"""Name of a check, and the check: causes first. None where it is not about this method."""

_ALL = "all checks"


def preflight(trainer: Any) -> Report:
    """Make every check that fits a trainer's method.

    Weights, gradients, modes, counters, what it noted, and the global random streams are afterwards what they were.
    A check that fails by itself is skipped with the reason: it must not be what stops a run.

    Args:
        trainer: TRL's ``DPOTrainer``, ``KTOTrainer``, ``RewardTrainer``, ``SFTTrainer``, ``GRPOTrainer`` or
            ``RLOOTrainer``, or one derived from these, in one process.
    """
    started = seconds()
    why = _unfit(trainer)
    if why:
        return Report((skipped(_ALL, why),), 0.0)
    with borrowed(trainer):
        bench = bench_of(trainer, method_of(trainer.args) or "")
        outcomes = [attempt(name, partial(probe, bench)) for name, probe in PROBES]
    return Report(tuple(outcome for outcome in outcomes if outcome is not None), seconds() - started)


def _unfit(trainer: Any) -> str:
    """Why nothing can be checked; empty where it can."""
    method = method_of(trainer.args)
    if method not in MEANS:
        return f"{type(trainer).__name__} is none of the trainers whose batches are known here"
    if trainer.accelerator.num_processes > 1 or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return "several processes share the model; the checks need one"
    if getattr(trainer, "_is_vision_dataset", False):
        return "rows with images"
    return ""
