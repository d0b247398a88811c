"""The order in which rows will be drawn: shuffled rows come in no order of the file, and of no order of length."""

from __future__ import annotations

import math

import numpy as np

from trueup.data.store import sizes_of
from trueup.health.findings import Finding
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Sample, Subject
from trueup.stats.association import spearman
from trueup.train.sources import DataSource
from trueup.train.unpaired import UnpairedSource

ORDER = "order of the rows"
LEAST, MOST = 64, 4096
"""Draws below which an order says nothing, and draws that are looked at."""
CERTAIN = 6.0
"""Standard errors from 0: a shuffled run gets there once in five hundred million."""


def check_order(subject: Subject, sample: Sample) -> Outcome | None:
    """Rank correlation of the place in the run with the row's number in the file, and with its length."""
    source = subject.source
    if not isinstance(source, DataSource | UnpairedSource):
        return None
    rows = _first_pass(source)
    if len(rows) < LEAST:
        return skipped(ORDER, f"fewer than {LEAST} rows")
    by_number, by_length = _z(rows), _z(sizes_of(source.trees)[rows])
    told = f"the first {len(rows)} draws: {by_number:+.1f} standard errors with the file, {by_length:+.1f} with length"
    if max(abs(by_number), abs(by_length)) < CERTAIN:
        return made(ORDER, told)
    ways = [f"of {what}" for what, z in (("the file", by_number), ("their length", by_length)) if abs(z) >= CERTAIN]
    message = f"The rows come in the order {' and '.join(ways)}: they are not shuffled."
    remedy = "Shuffle them anew for every pass: a run that ends on one kind of row forgets the others."
    evidence = {"draws": len(rows), "file": by_number, "length": by_length}
    return made(
        ORDER, told, [Finding("rows-in-order", "warning", 0, message, remedy, evidence, "F24 of the catalogue")]
    )


def _first_pass(source: DataSource | UnpairedSource) -> np.ndarray:
    """The rows of the first steps, as they are drawn, no further than one pass over the data."""
    count = min(len(source.trees), MOST)
    steps = range(-(-count // source.batch_size))
    return np.array([row for step in steps for row in source.visited(step)][:count], np.int64)


def _z(values: np.ndarray) -> float:
    """Rank correlation with the place, in the standard errors that it has without any order; 0 if nothing varies."""
    rho = spearman(np.arange(len(values)), values)
    return 0.0 if math.isnan(rho) else rho * math.sqrt(len(values) - 1)
