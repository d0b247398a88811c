"""The terminal's display of one run: a progress bar with the numbers that matter, findings as they come."""

from __future__ import annotations

from typing import Any, Self

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from trueup.cli.console import open_console
from trueup.train.protocols import StepReport

SHOWN = (
    ("loss", "loss {:.4f}"),
    ("rewards/margins", "margin (x beta) {:.3f}"),
    ("rewards/accuracies", "accuracy {:.2f}"),
    ("accuracy", "accuracy {:.2f}"),
    ("mean_token_accuracy", "token accuracy {:.2f}"),
    ("reward", "reward {:.3f}"),
    ("kl/sequence_k1", "KL {:.2f}"),
)
"""Metrics on the progress line, in this order, where a method has them."""


LINES = 20
"""Lines of progress in a log file, where no bar can move."""


class RunDisplay:
    """A ``Voice`` that draws on stderr, so that stdout stays for results."""

    def __init__(self, verb: str) -> None:
        self.console = open_console(stderr=True)
        self.verb = verb
        self.latest: dict[str, float] = {}
        self.steps = 0
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            # The one column that may wrap: in a narrow terminal the others would be cut.
            TextColumn("{task.fields[numbers]}", table_column=Column()),
            console=self.console,
        )
        self.task: Any = None
        self.early: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A bar that never began has nothing to end: the error that comes instead stands alone.
        if self.progress.live.is_started:
            self.progress.stop()

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        self.console.print(escape(text), soft_wrap=True)

    def prepare(self, what: str, done: int, total: int) -> None:
        """Show a bar of what comes before the first step; it goes when it is done."""
        if self.early is None:
            self.early = self.progress.add_task(what, total=total, numbers="")
            self.progress.start()
        self.progress.update(self.early, completed=done)
        if done == total:
            self.progress.remove_task(self.early)
            self.early = None

    def begin(self, steps: int, done: int) -> None:
        """Start the bar."""
        self.steps = steps
        self.task = self.progress.add_task(self.verb, total=steps, completed=done, numbers="")
        self.progress.start()

    def __call__(self, report: StepReport) -> None:
        """Move the bar."""
        self.latest |= {name: value for name, value in report.metrics.items() if value is not None}
        numbers = "  ".join(shape.format(self.latest[name]) for name, shape in SHOWN if name in self.latest)
        self.progress.update(self.task, completed=report.step, numbers=numbers)
        if not self.console.is_terminal and report.step % max(1, self.steps // LINES) == 0:
            self.say(f"{self.verb}: step {report.step} of {self.steps}  {numbers}")
