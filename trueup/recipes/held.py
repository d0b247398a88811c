"""What held-out rows say before training: are their prompts trained on, and do labels go the same way in both files?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from trueup.config.schema import RecipeConfig
from trueup.data.audit_overlap import overlap
from trueup.data.encode import EncodedSet
from trueup.data.read import read_examples, read_judged, read_pairs
from trueup.data.store import response_lengths_of
from trueup.health.data_rules import evaluation_overlap
from trueup.health.findings import Finding, Severity
from trueup.health.thresholds import threshold
from trueup.preflight.copies import shared
from trueup.preflight.outcome import Outcome, made

OVERLAP, ALIKE = "held-out prompts in training", "held-out pairs like training pairs"

SEVERAL, MANY = 0.01, 0.1
"""Share of held-out prompts below which it may be the chance of a small world, a note; and of whole rows, which is
fatal. Prompts alone may be shared on purpose, where pairs or judged responses to one prompt were split."""

READERS: Mapping[str, Callable[..., Any]] = {
    "sft": read_examples,
    "reward": read_pairs,
    "dpo": read_pairs,
    "orpo": read_pairs,
    "kto": read_judged,
}
"""Verb -> what reads its data; the other methods have no held-out data."""


def held_outcomes(data: EncodedSet, held: EncodedSet | None) -> list[Outcome]:
    """The quick checks of what a run is evaluated on, if it is: both by token ids alone."""
    if held is None:
        return []
    outcomes = [_check_prompts(data, held), _check_lengths(data, held)]
    return [outcome for outcome in outcomes if outcome is not None]


def _check_prompts(data: EncodedSet, held: EncodedSet) -> Outcome:
    """Prompts that are the same token by token; with their responses they are not held out at all."""
    prompts, rows = shared(held.trees, data.trees)
    told = f"{prompts} of {len(held)} held-out prompts are training prompts, token by token, {rows} with all responses"
    if not prompts:
        return made(OVERLAP, told)
    several: Severity = "warning" if prompts >= SEVERAL * len(held) else "note"
    severity: Severity = "fatal" if rows >= MANY * len(held) else several
    message = f"{told}: the held-out result is not held out."
    remedy = "Leave them out of one of the two files; trueup preflight also finds those that are nearly the same."
    evidence = {"prompts": prompts, "rows": rows, "held_out": len(held)}
    return made(OVERLAP, told, [Finding("evaluation-overlap", severity, 0, message, remedy, evidence, "rule E01; F23")])


def _check_lengths(data: EncodedSet, held: EncodedSet) -> Outcome | None:
    """How often the longer response is chosen, in training pairs and in held-out ones."""
    if len(response_lengths_of(data.trees)) != 2 * len(data):
        return None
    (training, pairs), (other, rows) = _longer_wins(data), _longer_wins(held)
    told = (
        f"the longer response is chosen in {training:.0%} of {pairs} training and {other:.0%} of {rows} held-out pairs"
    )
    if not turned_by_length(training, pairs, other, rows):
        return made(ALIKE, told)
    message = f"What is wanted is not the same in both files: {told}."
    remedy = "Read some rows of both: are the columns the same way round, and are they of one source?"
    evidence = {"training": training, "held_out": other, "pairs": pairs, "rows": rows}
    return made(
        ALIKE, told, [Finding("held-out-opposite", "warning", 0, message, remedy, evidence, "F12 of the catalogue")]
    )


def _longer_wins(data: EncodedSet) -> tuple[float, int]:
    """Share of pairs whose chosen response is longer, of those whose sides differ in length, and how many these are."""
    sides = response_lengths_of(data.trees).reshape(len(data), 2).astype(int)
    differ = sides[sides[:, 0] != sides[:, 1]]
    return (float((differ[:, 0] > differ[:, 1]).mean()) if len(differ) else 0.5), len(differ)


def turned_by_length(training: float, pairs: int, held: float, rows: int) -> bool:
    """Has training significantly less than half of the preference for a length that held-out pairs have?

    By the bounds of ``held-out-opposite``, with the binomial standard error of a share near one half.
    """
    if not pairs or not rows:
        return False
    gap, way = abs(held - 0.5), math.copysign(1.0, held - 0.5)
    if gap * 2 * math.sqrt(rows) < threshold("held-out-opposite/held"):
        return False
    error = math.hypot(0.5 / math.sqrt(pairs), 0.25 / math.sqrt(rows))
    return (0.5 * gap - way * (training - 0.5)) / error > threshold("held-out-opposite/warning")


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
