"""Every check that can be made before the first update of a run, which is then not made."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trueup.config.schema import RecipeConfig
from trueup.data.audit_overlap import overlap
from trueup.data.read import read_examples, read_judged, read_pairs
from trueup.health.data_rules import evaluation_overlap
from trueup.preflight.outcome import Outcome, Report, made
from trueup.recipes.checks import Examined, Examiner
from trueup.recipes.table import recipe

OVERLAP = "held-out prompts in training"
ROWS = 16
"""Rows for which the reference is asked, if the run has so many: fewer say nothing of the data."""

READERS: Mapping[str, Callable[..., Any]] = {
    "sft": read_examples,
    "reward": read_pairs,
    "dpo": read_pairs,
    "orpo": read_pairs,
    "kto": read_judged,
}
"""Verb -> what reads its data; the other methods have no held-out data."""


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


def check_overlap(verb: str, config: RecipeConfig) -> Outcome | None:
    """Prompts that training and held-out data share; None without held-out data."""
    if config.data.validation is None or verb not in READERS:
        return None
    read = READERS[verb]
    training, held = read(config.data.path, limit=config.data.limit).whole(), read(config.data.validation).whole()
    known, asked = ([(row.prompt, row.where) for row in part.records] for part in (training, held))
    found = overlap([p for p, _ in known], [w for _, w in known], [p for p, _ in asked], [w for _, w in asked])
    finding = evaluation_overlap({"overlap": {"file": config.data.validation, **found}})
    counts = ", ".join(f"{found[kind]['count']} {kind}" for kind in ("exact", "near", "passage"))
    return made(OVERLAP, f"{found['prompts']} held-out prompts: {counts}", [finding] if finding else [])


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
