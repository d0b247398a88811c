"""Rows that are copies of others, and questions that are also held out: told by hashes of token ids."""

from __future__ import annotations

import numpy as np

from trueup.data.order import step_indices
from trueup.data.store import MappedTrees
from trueup.health.findings import Finding, Severity
from trueup.preflight.outcome import Outcome, made
from trueup.preflight.subject import Sample, Subject
from trueup.train.rollout import RolloutSource
from trueup.train.sources import DataSource
from trueup.train.unpaired import UnpairedSource

COPIES = "copies of rows"
SEVERAL, MOSTLY = 0.01, 0.5
"""Share of rows that repeat another one: worth a note, and more than half of what is trained on."""


def check_copies(subject: Subject, sample: Sample) -> Outcome | None:
    """The share of rows, prompt and responses, that an earlier row has token by token; of prompts, if they suffice."""
    if isinstance(subject.source, RolloutSource):
        return _check_prompts(subject.source)
    if not isinstance(subject.source, DataSource | UnpairedSource):
        return None
    rows = len(subject.data)
    different = len(np.unique(subject.data.trees.keys))
    share = 1 - different / rows
    told = f"{rows - different} of {rows} rows repeat another one"
    if share < SEVERAL:
        return made(COPIES, told)
    severity: Severity = "warning" if share > MOSTLY else "note"
    message = (
        f"{told} ({share:.0%}): there are {different} different ones, each {rows / different:.3g} times on average."
    )
    remedy = "Keep each row once, unless the weight is meant: one pass over the file is several over most of its rows."
    evidence = {"rows": rows, "different": different}
    return made(
        COPIES, told, [Finding("rows-copied", severity, 0, message, remedy, evidence, "F23, F69 of the catalogue")]
    )


def _check_prompts(source: RolloutSource) -> Outcome:
    """A rollout must not draw one prompt twice: its groups would be one group."""
    drawn, plan = source.plan.prompts, source.plan
    rows = step_indices(0, drawn, len(source.prompts), plan.seed)
    different = len({source.prompts[row].prompt for row in rows})
    told = f"{different} different prompts among the {drawn} of the first rollout"
    if 2 * different > drawn:
        return made(COPIES, told)
    message = f"A rollout draws {drawn} prompts, and there are {different} different ones: each comes several times."
    remedy = "Give more prompts (data.path, data.limit), or draw fewer (rollout.prompts_per_rollout)."
    evidence = {"different": different, "drawn": drawn}
    return made(
        COPIES, told, [Finding("few-prompts", "warning", 0, message, remedy, evidence, "F129 of the catalogue")]
    )


def shared(held: MappedTrees, training: MappedTrees) -> tuple[int, int]:
    """How many held-out prompts, and how many whole rows, are in training token by token."""
    prompts = np.isin(held.prompt_keys, training.prompt_keys).sum()
    return int(prompts), int(np.isin(held.keys, training.keys).sum()) if prompts else 0
