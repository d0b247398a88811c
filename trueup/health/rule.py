"""What a rule over a run is: a name, a family, what it needs to see, for which methods, and how it judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trueup.health.findings import Finding

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Metric name of docs/metrics.md -> (step, value) in order of steps."""

Family = Literal[
    "data",
    "log-probabilities",
    "reference",
    "optimisation",
    "objective",
    "reward",
    "rollout",
    "policy update",
    "numbers",
]
"""Where a fault lies, and so where to look: the part of the system, not its symptom."""


@dataclass(frozen=True)
class RunLog:
    """What is known of a run, ours or anybody's, finished or under way.

    Attributes:
        series: its metrics under the names of docs/metrics.md.
        method: sft, reward, dpo, kto, orpo, online-dpo, ppo, grpo or rloo; None if nobody said.
        settings: what is known of its settings by trueup's dotted keys, such as ``preference.beta``.
    """

    series: Series
    method: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """One diagnosis.

    Attributes:
        name: identifier; a heading of docs/diagnoses.md.
        family: the part of the system that a finding of this rule accuses.
        methods: the methods it is about; empty for all.
        needs: alternatives, each the metrics that are enough to judge by; none of them there: it could not be judged.
        judge: the log so far -> a finding, or None.
    """

    name: str
    family: Family
    methods: frozenset[str]
    needs: Sequence[frozenset[str]]
    judge: Callable[[RunLog], Finding | None]

    def applies(self, method: str | None) -> bool:
        """Is the rule about this method? An unknown method is judged by all rules."""
        return method is None or not self.methods or method in self.methods

    def sees(self, series: Series) -> bool:
        """Are there metrics to judge by?"""
        return any(all(series.get(name) for name in alternative) for alternative in self.needs)


ONLINE = frozenset({"ppo", "grpo", "rloo", "online-dpo"})
"""Methods that learn from their own samples."""

DPO = frozenset({"dpo", "online-dpo"})
"""Methods on pairs with implicit rewards."""

PREFERENCE = DPO | {"kto"}
"""Methods with implicit rewards."""

OFFLINE = frozenset({"sft", "reward", "dpo", "kto", "orpo"})
"""Methods that learn from a file: what their loss is says how good they are."""


def any_of(*names: str) -> tuple[frozenset[str], ...]:
    """Needs: each metric is enough alone."""
    return tuple(frozenset({name}) for name in names)


def all_of(*names: str) -> tuple[frozenset[str], ...]:
    """Needs: only all of them together are enough."""
    return (frozenset(names),)
