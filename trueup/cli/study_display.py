"""The live display of a study: stages, the jobs at work, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from trueup.cli.console import open_console
from trueup.cli.display import SHOWN
from trueup.study.execute import Event
from trueup.study.plan import Job


class StudyDisplay:
    """Listens to a study's events and draws them on stderr; on something that is no terminal it prints lines."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = {job.id: job for job in jobs}
        self.console = open_console(stderr=True)
        self.started: dict[str, float] = {}
        self.finished: set[str] = set()
        self.state: dict[str, Event] = {}
        self.durations: dict[str, list[float]] = {}
        self.progress = Progress(
            TextColumn("[bold]study"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("jobs"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
        )
        self.task = self.progress.add_task("study", total=len(jobs), left="")
        self.live = Live(self, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        job = self.jobs[event.job]
        if event.kind == "start":
            self.started[event.job] = time.monotonic()
        elif event.kind == "step":
            self.state[event.job] = event
        elif event.kind == "say" and event.text.startswith(("warning", "fatal")):
            self.console.print(f"[yellow]{escape(job.label)}[/]: {escape(event.text)}")
        elif event.kind in ("done", "failed"):
            self._end(event, job)

    def _end(self, event: Event, job: Job) -> None:
        self.finished.add(event.job)
        began = self.started.pop(event.job, None)
        if began is not None:
            self.durations.setdefault(job.stage, []).append(time.monotonic() - began)
        if event.kind == "failed":
            self.console.print(f"[red]failed: {escape(job.label)}[/]: {escape(event.text)}")
        elif not self.console.is_terminal and began is not None:
            self.console.print(f"{len(self.finished)}/{len(self.jobs)} {escape(job.label)}")
        self.progress.update(self.task, completed=len(self.finished), left=self._left())

    def _left(self) -> str:
        """An estimate from the mean duration of each stage so far; silent while a stage is still unknown."""
        waiting = [job for job in self.jobs.values() if job.id not in self.finished]
        known = {stage: sum(times) / len(times) for stage, times in self.durations.items()}
        if not waiting or any(job.stage not in known for job in waiting):
            return ""
        workers = max(1, len(self.started))
        return f"about {sum(known[job.stage] for job in waiting) / workers / 60:.1f} min left"

    def __rich__(self) -> Group:
        """The bar, and a line for every job at work: stage, arm, seed, step, numbers."""
        table = Table.grid(padding=(0, 2))
        for name in list(self.started):
            event, job = self.state.get(name), self.jobs[name]
            step = f"step {event.step}/{event.steps}" if event else "starting"
            metrics = (event.metrics or {}) if event else {}
            numbers = "  ".join(shape.format(metrics[key]) for key, shape in SHOWN if metrics.get(key) is not None)
            table.add_row(f"[cyan]{job.stage}[/]", escape(job.label), step, numbers)
        return Group(self.progress, table)
