"""The health of a run: the monitor, with what the run knows of itself, and the gate that fatal findings close."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from trueup.config.load import leaves
from trueup.config.schema import RECIPES, KtoConfig, RecipeConfig
from trueup.errors import GateError
from trueup.health.findings import Finding
from trueup.health.monitor import Monitor
from trueup.losses.catalog import lookup
from trueup.runtime.journal import Journal
from trueup.runtime.tracking import Trackers
from trueup.train.protocols import StepReport


@dataclass(frozen=True)
class FindingsSink:
    """Where findings go: the journal first, then the trackers."""

    journal: Journal
    trackers: Trackers

    def append(self, row: Mapping[str, Any]) -> None:
        """Record one finding."""
        self.journal.append(row)
        self.trackers.append(row)


@dataclass(frozen=True)
class Gate:
    """An observer: the monitor, which also looks after the last step, and stops the run where ``stops`` says so.

    Attributes:
        monitor: judges the run.
        steps: of the whole run.
        stops: do fatal findings stop it?
    """

    monitor: Monitor
    steps: int
    stops: bool

    def __call__(self, report: StepReport) -> None:
        """Show the monitor a step.

        Raises:
            GateError: there is a fatal finding.
        """
        self.monitor(report)
        if report.step == self.steps:
            self.monitor.look()
        self.check(report.step)

    def check(self, step: int) -> None:
        """Raise GateError after ``step`` steps if there is a fatal finding and such stop the run."""
        if not (self.stops and self.monitor.fatal):
            return
        when = f"stopped after step {step} of {self.steps}" if step else "stopped before the first step"
        raise GateError(
            f"{when} by what was found fatal: {', '.join(self.monitor.fatal)}; "
            "repair it and start anew, or go on regardless with --resume --run.on_fatal continue"
        )


def set_gate(
    config: RecipeConfig,
    steps: int,
    say: Callable[[str], None],
    metrics: Journal,
    findings: FindingsSink,
    early: Sequence[Finding],
) -> Gate:
    """The gate of a run with its monitor, which knows the steps and findings before a resume, and early findings."""
    monitor = Monitor(findings, say, method_of(config), known_settings(config, steps))
    monitor.replay(metrics.rows(), findings.journal.rows())
    monitor.tell(early)
    return Gate(monitor, steps, config.run.on_fatal == "stop")


def method_of(config: RecipeConfig) -> str:
    """The verb that a configuration is for."""
    return next(verb for verb, schema in RECIPES.items() if type(config) is schema)


def known_settings(config: RecipeConfig, steps: int) -> dict[str, Any]:
    """Dotted key -> value, with the number of steps that the run has."""
    values: dict[str, Any] = {key: reduce(getattr, key.split("."), config) for key in leaves(type(config))}
    if isinstance(config, KtoConfig) and config.kto.beta is None:
        values["kto.beta"] = lookup(config.kto.loss, "unpaired").default_beta
    return {**values, "optim.steps": steps}
