"""All faults of the benchmark, and the runs that they make."""

from __future__ import annotations

import json
from dataclasses import dataclass

from faults import (
    in_data,
    in_objective,
    in_optimisation,
    in_reference,
    in_resume,
    in_reward,
    in_rollouts,
    in_tokens,
    together,
)
from faults.fault import Fault

_SUBJECTS = (
    in_data,
    in_tokens,
    in_reference,
    in_optimisation,
    in_objective,
    in_reward,
    in_rollouts,
    in_resume,
    together,
)

FAULTS: tuple[Fault, ...] = tuple(fault for subject in _SUBJECTS for fault in subject.FAULTS)


@dataclass(frozen=True)
class Case:
    """One injected run: the fault by its number in ``FAULTS``, the method and the strength."""

    number: int
    method: str
    strength: float

    @property
    def fault(self) -> Fault:
        """What is injected."""
        return FAULTS[self.number]

    @property
    def label(self) -> str:
        """Its name as that of a file."""
        words = self.fault.name.lower().replace(",", "").replace("'", "").replace(" ", "-")
        return f"{self.fault.key}-{words}-{self.method}-{self.strength:g}"

    @property
    def twin(self) -> str:
        """What its twins are known by: method and settings."""
        return twin_label(self.method, self.fault.settings)


def twin_label(method: str, settings: object) -> str:
    """The name of the healthy runs of a method with these settings."""
    told = json.dumps(settings, sort_keys=True)
    words = "".join(c if c.isalnum() or c in ".-" else "_" for c in told).strip("_")
    return f"twin-{method}" + (f"-{words}" if words else "")


def cases(only: frozenset[str] = frozenset()) -> list[Case]:
    """Every fault in every method at every strength, the strongest first; ``only``: of these numbers or methods."""
    found = [
        Case(number, method, strength)
        for number, fault in enumerate(FAULTS)
        for method in fault.methods
        for strength in fault.strengths
        if not only or fault.key in only or method in only
    ]
    return sorted(found, key=_rank)


def _rank(case: Case) -> tuple[int, int]:
    """First every fault once, at its strongest; then in other methods; then weaker."""
    fault = case.fault
    weaker = len(fault.strengths) - 1 - fault.strengths.index(case.strength)
    return weaker, fault.methods.index(case.method)
