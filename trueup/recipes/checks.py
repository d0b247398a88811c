"""From a prepared recipe to the checks before its first step; and where it ends if nothing else is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from torch import nn

from trueup.data.encode import EncodedSet
from trueup.data.records import Dropped, Loaded, Prompt
from trueup.health.findings import Finding
from trueup.preflight.known import IDENTITY
from trueup.preflight.outcome import Outcome, Report
from trueup.preflight.run import run_checks
from trueup.preflight.subject import Subject
from trueup.recipes.bench import Bench
from trueup.recipes.held import held_outcomes
from trueup.train.protocols import Objective, Source, StepReport


class Examined(Exception):
    """Ends a recipe where its training would begin. Not an error: it carries what was wanted."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.describe())
        self.report = report


class Examiner:
    """A ``Voice`` for a recipe that is to be examined and not trained; it passes on the progress of slow things."""

    def __init__(self, prepare: Callable[[str, int, int], None]) -> None:
        self._prepare = prepare

    def say(self, text: str) -> None:
        """Drop the line: what it tells of the plan is about a shortened run."""

    def prepare(self, what: str, done: int, total: int) -> None:
        """Pass the progress on."""
        self._prepare(what, done, total)

    def begin(self, steps: int, done: int) -> None:
        """Never reached."""

    def __call__(self, report: StepReport) -> None:
        """Never reached."""


def early_findings(
    bench: Bench,
    method: str,
    objective: Objective,
    source: Source,
    data: EncodedSet,
    loaded: Loaded[Any],
    *,
    trained: nn.Module | None = None,
    reference: nn.Module | None = None,
    same_model: bool = True,
    stored: bool = False,
    held: EncodedSet | None = None,
    known: Sequence[Outcome] = (),
) -> list[Finding]:
    """Check a run before its first step as ``run.preflight`` says, tell it in a line, and return what was found.

    Args:
        bench: the prepared run.
        method: its verb.
        objective: what batches are worth.
        source: where they come from.
        data: what is trained on, or the prompts.
        loaded: the same as it was read.
        trained: the module that is updated, where it is not ``bench.model``.
        reference: the frozen reference, where it is a model in memory.
        same_model: is the reference the policy as it starts?
        stored: is what the reference says read from disk?
        held: what the run is evaluated on, if it is.
        known: checks that the recipe has made itself.

    Raises:
        Examined: the recipe was run with an ``Examiner``, so it ends here.
    """
    level = bench.config.run.preflight
    if level == "off" or (bench.config.run.resume and _is_told(bench)):
        return [finding for outcome in known for finding in outcome.findings]
    rows = bench.rows(data)
    subject = Subject(
        method=method,
        trained=bench.model if trained is None else trained,
        policy=bench.model,
        objective=objective,
        source=source,
        batching=bench.batching,
        encoder=bench.encoder,
        data=data,
        rows=rows,
        asked=lambda number: list(_asked(data, loaded, rows[:number])),
        learning_rate=bench.config.optim.learning_rate,
        reference=reference,
        same_model=same_model,
        stored=stored,
    )
    report = run_checks(subject, level, [*known, *held_outcomes(data, held)])
    if isinstance(bench.voice, Examiner):
        raise Examined(report)
    _tell(bench, report)
    return list(report.findings)


def _is_told(bench: Bench) -> bool:
    """Is every line of the run's findings whole? Only if a crash has torn one is a resumed run checked again."""
    path = bench.folder / "findings.jsonl"
    text = path.read_bytes() if path.exists() else b"torn"
    return not text or text.endswith(b"\n")


def _tell(bench: Bench, report: Report) -> None:
    """One line for all, and the numbers of step 0, which are worth reading even where they are right."""
    for outcome in report.outcomes:
        if outcome.check == IDENTITY and outcome.was_made:
            bench.voice.say(outcome.told)
    bench.voice.say(report.describe())


def _asked(data: EncodedSet, loaded: Loaded[Any], rows: Sequence[int]) -> Iterator[tuple[Prompt, tuple[int, ...]]]:
    """Turns and token ids of the prompts of some rows; the file is read as far as the last of them."""
    places = {int(data.row_numbers[row]): row for row in rows}
    for number, record in enumerate(islice(loaded.rows, max(places, default=0)), 1):
        if number in places and not isinstance(record, Dropped):
            yield record.prompt, data.trees[places[number]].prompt
