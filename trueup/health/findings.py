"""A finding: one thing that is wrong or worth knowing, with its evidence and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["note", "warning", "fatal"]


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    Attributes:
        rule: identifier of the rule (docs/diagnoses.md).
        severity: ``note`` is for information, ``warning`` asks for a decision, ``fatal`` makes the result invalid.
        first_step: the optimiser step since which it holds; 0 = before the first update.
        message: what is the case, with the numbers, in one or two sentences.
        remedy: what to do.
        evidence: the numbers that fired, by metric name.
        reference: where the rule comes from.
    """

    rule: str
    severity: Severity
    first_step: int
    message: str
    remedy: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""

    def row(self) -> dict[str, Any]:
        """The line of ``findings.jsonl``."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Finding:
        """The finding of such a line; the step at which it was recorded is left out."""
        return cls(**{name: value for name, value in row.items() if name != "step"})
