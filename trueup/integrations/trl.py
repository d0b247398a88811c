"""One line in somebody's TRL script: checks before its first step, and a monitor while it trains.

    from trueup.integrations.trl import watch

    trainer = DPOTrainer(...)
    watch(trainer)
    trainer.train()

``callbacks=[TrueupCallback()]`` is the monitor alone: a callback does not see the trainer, so it cannot check its loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trueup.errors import GateError
from trueup.health.doctor import Diagnosis, diagnose
from trueup.health.findings import Finding
from trueup.health.monitor import Monitor
from trueup.integrations.trl_log import line_of, method_of, settings_of, stride_of
from trueup.integrations.trl_preflight import preflight
from trueup.preflight.outcome import Report
from trueup.runtime.journal import Journal

OnFatal = Literal["stop", "continue"]
FINDINGS = "findings.jsonl"


class TrueupCallback(TrainerCallback):
    """A monitor of a TRL trainer's log, by the rules of docs/diagnoses.md.

    Findings are written to ``findings.jsonl`` in ``args.output_dir`` and said once. A fatal one stops the run after a
    checkpoint.

    Args:
        on_fatal: ``stop`` or ``continue``.
        say: told one line for each finding and the summary; None writes them to standard error.

    Attributes:
        trainer: whose tensors are checked before the first step; None without ``watch``.
        report: what these checks said; None before them.
        diagnosis: which rules judged, and which could not; None before the end.
    """

    def __init__(self, on_fatal: OnFatal = "stop", say: Callable[[str], None] | None = None) -> None:
        self.on_fatal, self.say = on_fatal, say or _to_standard_error
        self.trainer: Any = None
        self.report: Report | None = None
        self.diagnosis: Diagnosis | None = None
        self.monitor: Monitor | None = None
        self.method: str | None = None

    @property
    def findings(self) -> list[Finding]:
        """What was found in this run so far, in that order."""
        return self.monitor.found if self.monitor else []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the trainer, if it is known, and set up the monitor.

        Raises:
            GateError: something fatal was found before the first step. The trainer would make a step before it stops.
        """
        self.method, self.diagnosis = method_of(args), None
        speaks = state.is_world_process_zero
        journal = _journal(Path(args.output_dir or "."), anew=state.global_step == 0) if speaks else None
        say = self.say if speaks else _to_nobody
        self.monitor = Monitor(
            journal or _Nowhere(), say, self.method, settings_of(args, state.max_steps), stride_of(args)
        )
        if state.global_step:
            self._resume(state, journal)
        if self.trainer is not None:
            self.report = preflight(self.trainer)
            say(self.report.describe())
            self.monitor.tell(self.report.findings)
            if self.report.fatal and self.on_fatal == "stop":
                raise GateError(
                    f"stopped before the first step by what was found fatal: {', '.join(self.report.fatal)}; repair "
                    "it, or go on regardless with on_fatal='continue'"
                )

    def _resume(self, state: TrainerState, journal: Journal | None) -> None:
        """Take in what a run that goes on has logged and found before."""
        assert self.monitor is not None
        lines = (line_of(row, int(row["step"]), self.method) for row in state.log_history)
        rows = ({"step": line.step, **line.metrics} for line in lines)
        self.monitor.replay(rows, journal.rows() if journal else ())

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        """Show the monitor what the trainer logs; ask it to stop if something is fatal."""
        if self.monitor is not None and logs:
            known = len(self.monitor.fatal)
            self.monitor(line_of(logs, state.global_step, self.method))
            if len(self.monitor.fatal) > known and self.on_fatal == "stop":
                control.should_save = control.should_training_stop = True
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look a last time, and say what was judged and what could not be."""
        if self.monitor is None:
            return
        self.monitor.look()
        self.diagnosis = diagnose(self.monitor.log, self.monitor.found)
        self.monitor.tell(self.diagnosis.findings)
        self.monitor.say(summary(self.diagnosis, self.monitor.found, self.report, state.global_step))


def watch(trainer: Any, on_fatal: OnFatal = "stop", say: Callable[[str], None] | None = None) -> TrueupCallback:
    """Check a TRL trainer on its own tensors when it begins to train, and monitor it.

    Args:
        trainer: a trainer of TRL.
        on_fatal: as for ``TrueupCallback``; ``stop`` raises ``GateError`` for what is found before the first step.
        say: as for ``TrueupCallback``.

    Returns:
        The callback, which the trainer now has.
    """
    callback = TrueupCallback(on_fatal, say)
    callback.trainer = trainer
    trainer.add_callback(callback)
    return callback


def summary(diagnosis: Diagnosis, found: Iterable[Finding], report: Report | None, steps: int) -> str:
    """One paragraph: what was found, how many rules judged, and what the others lacked."""
    rules = list(dict.fromkeys(finding.rule for finding in found))
    first = f"found in {steps} steps: {', '.join(rules)}." if rules else f"nothing found in {steps} steps."
    judged = len(diagnosis.quiet) + len({finding.rule for finding in diagnosis.findings} - _early(report))
    parts = [
        first,
        *([f"{report.describe()}."] if report else []),
        f"{judged} {'rule' if judged == 1 else 'rules'} judged the log",
    ]
    if diagnosis.short:
        parts[-1] += f", {len(diagnosis.short)} had too few values"
    lacking = sorted({name for rule in diagnosis.unjudged for name in min(rule.lacks, key=len, default=())})
    if diagnosis.unjudged:
        parts[-1] += f", {len(diagnosis.unjudged)} could not for lack of {', '.join(lacking)}"
    return f"trueup: {' '.join(parts)}."


def _early(report: Report | None) -> set[str]:
    return {finding.rule for finding in report.findings} if report else set()


def _journal(folder: Path, anew: bool) -> Journal:
    """The file of findings; that of an earlier run in the same folder is set aside."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FINDINGS
    if anew and file.exists():
        file.replace(folder / f"earlier-{FINDINGS}")
    return Journal(file)


def _to_standard_error(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def _to_nobody(text: str) -> None:
    pass


class _Nowhere:
    """Where the other processes of a run write."""

    def append(self, row: Mapping[str, Any]) -> None:
        """Forget it: the first process writes."""
