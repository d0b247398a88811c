"""The trackers of one run, told everything the journal is told, and never able to end it."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from textwrap import shorten
from typing import Any, Protocol, Self

from trueup.errors import Interrupted, UserError
from trueup.runtime.journal import Journal
from trueup.runtime.trackers import TRACKERS, Ending, Finding, Tracked, Tracker


def check_trackers(names: Iterable[str]) -> None:
    """Refuse a tracker whose package is not installed, before anything slow happens."""
    for name in names:
        found = importlib.util.find_spec(name)
        # A mere folder of that name, such as wandb leaves where it ran, is importable and has no origin.
        if found is None or found.origin is None:
            raise UserError(f"run.trackers: {name} is not installed; pip install {name}, or leave it out")


class _Report(Protocol):
    @property
    def step(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


class Trackers:
    """An observer that hands every step to the trackers, and a context that closes them however the run ends.

    A tracker that fails is told of in one line and left out from then on.

    Args:
        names: keys of ``TRACKERS``.
        run: the run; what each tracker calls it and which findings it has is kept in ``trackers.jsonl`` of its folder.
        say: told one line for each tracker: where the run is, or why it is not there.
    """

    def __init__(self, names: Sequence[str], run: Tracked, say: Callable[[str], None]) -> None:
        self.say, self.step = say, run.step
        self.open: dict[str, Tracker] = {}
        self.kept = Journal(run.folder / "trackers.jsonl")
        rows = list(self.kept.rows())
        known = {row["tracker"]: row["identity"] for row in rows if "identity" in row}
        self.noted = {(row["tracker"], row["finding"], row["severity"]) for row in rows if "finding" in row}
        for name in dict.fromkeys(names):
            opened = self._attempt(name, lambda name=name: TRACKERS[name](replace(run, identity=known.get(name))))
            if opened is None:
                continue
            self.open[name] = opened
            say(f"tracker {name}: {opened.place}")
            if name not in known:
                self.kept.append({"tracker": name, "identity": opened.identity})

    def replay(self, rows: Iterable[Mapping[str, Any]], findings: Iterable[Finding]) -> None:
        """Take in the journals of a resumed run, for the trackers that are new to it or had failed."""
        for row in rows:
            self._log(row["step"], {name: value for name, value in row.items() if name != "step"})
        for finding in findings:
            self.append(finding)

    def __call__(self, report: _Report) -> None:
        """Hand on one step."""
        self.step = report.step
        self._log(report.step, report.metrics)

    def append(self, row: Finding) -> None:
        """Hand on one finding, to those that lack it."""
        for name, tracker in list(self.open.items()):
            key = (name, row["rule"], row["severity"])
            if key in self.noted and tracker.last is not None and row["first_step"] <= tracker.last:
                continue
            self._attempt(name, lambda tracker=tracker: tracker.note(row))
            if name in self.open and key not in self.noted:
                self.noted.add(key)
                self.kept.append({"tracker": name, "finding": row["rule"], "severity": row["severity"]})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None and issubclass(kind, Interrupted | KeyboardInterrupt)
        ending: Ending = "finished" if kind is None else "stopped" if stopped else "failed"
        for name, tracker in list(self.open.items()):
            self._attempt(name, lambda tracker=tracker: tracker.close(ending))

    def _log(self, step: int, metrics: Mapping[str, Any]) -> None:
        # What is not finite is null in the journal; trackers have no number for it and make one up.
        finite = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
        for name, tracker in list(self.open.items()):
            if tracker.last is None or step > tracker.last:
                self._attempt(name, lambda tracker=tracker: tracker.log(step, finite))

    def _attempt(self, name: str, act: Callable[[], Any]) -> Any:
        """Do something with a tracker; whatever it raises becomes a line, and what it prints is not our result."""
        try:
            with redirect_stdout(io.StringIO()):
                return act()
        except Exception as error:
            self.open.pop(name, None)
            why = shorten(f"{type(error).__name__}: {error}", 240)
            self.say(
                f"warning: tracker {name} failed at step {self.step} and is left out from here "
                f"({why}); the run goes on, and its folder has everything"
            )
            return None
