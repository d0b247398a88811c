"""Every rule over a run's metrics, and every statistic with limits: one table for the monitor, the doctor, the docs."""

from __future__ import annotations

from trueup.health.limit import Limit
from trueup.health.rule import Rule
from trueup.health.rules import (
    course,
    held_out,
    numbers,
    opposite,
    optimisation,
    pairs,
    responses,
    reward_model,
    rewards,
    rollouts,
    updates,
)

_SUBJECTS = (
    numbers,
    optimisation,
    pairs,
    course,
    held_out,
    opposite,
    reward_model,
    rollouts,
    responses,
    rewards,
    updates,
)

RULES: tuple[Rule, ...] = tuple(rule for subject in _SUBJECTS for rule in subject.RULES)
"""In the order of docs/diagnoses.md."""

LIMITS: tuple[Limit, ...] = tuple(limit for subject in _SUBJECTS for limit in subject.LIMITS)
"""Statistics that are held against the thresholds of their rule."""
