"""What a check says: it passed and by which number, it found something, or why it was not made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trueup.errors import TrueupError
from trueup.health.findings import Finding

Status = Literal["passed", "found", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """One check.

    Attributes:
        check: its name (docs/preflight.md).
        told: what was looked at, with the number; or why it was skipped.
        findings: what is wrong or worth knowing; empty where it passed.
        was_made: False where it was skipped.
    """

    check: str
    told: str
    findings: tuple[Finding, ...] = ()
    was_made: bool = True

    @property
    def status(self) -> Status:
        """``passed``, ``found`` or ``skipped``."""
        if not self.was_made:
            return "skipped"
        return "found" if self.findings else "passed"

    def row(self) -> dict[str, Any]:
        """The check as JSON takes it."""
        return {
            "check": self.check,
            "status": self.status,
            "told": self.told,
            "findings": [finding.row() for finding in self.findings],
        }


def made(check: str, told: str, findings: Sequence[Finding] = ()) -> Outcome:
    """A check that was made: with findings it found something, without it passed."""
    return Outcome(check, told, tuple(findings))


def skipped(check: str, reason: str) -> Outcome:
    """A check that was not made."""
    return Outcome(check, reason, was_made=False)


@dataclass(frozen=True)
class Report:
    """All checks of a run before its first step, in the order in which they were made."""

    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What all checks found."""
        return tuple(finding for outcome in self.outcomes for finding in outcome.findings)

    @property
    def fatal(self) -> tuple[str, ...]:
        """Rules of the fatal findings."""
        return tuple(finding.rule for finding in self.findings if finding.severity == "fatal")

    def count(self, status: Status) -> int:
        """The number of checks with this status."""
        return sum(outcome.status == status for outcome in self.outcomes)

    def describe(self) -> str:
        """One line for people."""
        passed, found, left = (self.count(status) for status in ("passed", "found", "skipped"))
        parts = [f"{passed} {'check' if passed == 1 else 'checks'} passed"]
        parts += [f"{found} found something"] if found else []
        parts += [f"{left} skipped"] if left else []
        return f"preflight: {', '.join(parts)} in {self.seconds:.1f} s"

    def card(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        counts = {status: self.count(status) for status in ("passed", "found", "skipped")}
        return {**counts, "seconds": self.seconds, "checks": [outcome.row() for outcome in self.outcomes]}


FAILURES = (
    TrueupError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
)
"""What a check may end in without stopping the run that it is made before."""


def attempt(name: str, check: Callable[[], Outcome | None]) -> Outcome | None:
    """Make a check; one that fails by itself is skipped with the reason: it must not be what stops a run."""
    try:
        return check()
    except FAILURES as error:
        first = (str(error).splitlines() or [""])[0]
        return skipped(name, f"could not be made: {type(error).__name__}: {first}")
