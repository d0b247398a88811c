"""Every check that can be made before the first update of a run, which is then not made."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trueup.config.schema import RecipeConfig
from trueup.preflight.outcome import Report
from trueup.recipes.checks import Examined, Examiner
from trueup.recipes.held import check_overlap
from trueup.recipes.table import recipe

ROWS = 16
"""Rows for which the reference is asked, if the run has so many: fewer say nothing of the data."""


def run_preflight(verb: str, config: RecipeConfig, prepare: Callable[[str, int, int], None]) -> Report:
    """Prepare a run as its recipe does, check it in full, and end there: no run folder, no update.

    Only the rows of the first steps are given to the reference. What was encoded stays in the user's cache, where the
    run finds it.

    Args:
        verb: the training verb.
        config: its settings; ``run.out`` is not used and may exist.
        prepare: hears how far something slow has come.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            recipe(verb)(_shortened(config, Path(folder) / "run"), Examiner(prepare))
        except Examined as end:
            report = end.report
        else:
            raise AssertionError(f"the recipe of {verb} trained, although it was only to be examined")
    outcome = check_overlap(verb, config)
    return report if outcome is None else replace(report, outcomes=(*report.outcomes, outcome))


def _shortened(config: RecipeConfig, folder: Path) -> RecipeConfig:
    """The settings of the run's first steps, so that only their rows are prepared, leaving nothing behind."""
    steps = -(-ROWS // config.optim.batch_size)
    run = {"out": str(folder), "preflight": "full", "resume": False, "trackers": ()}
    return config.model_copy(
        update={
            "run": config.run.model_copy(update=run),
            "optim": config.optim.model_copy(update={"steps": min(steps, config.optim.steps or steps)}),
            "data": config.data.model_copy(update={"validation": None}),
        }
    )
