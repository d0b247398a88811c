"""Do chosen responses come before rejected ones in the alphabet? Who sorts the two and takes the first makes labels."""

from __future__ import annotations

import math

from trueup.health.findings import Finding
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Sample, Subject
from trueup.train.sources import DataSource

CHECK = "sides in alphabetical order"
PAIRS = 1024
"""Pairs that are looked at, from all over the data."""
LEAST = 64
"""Pairs below which nothing is said."""
APART, CERTAIN = 0.1, 6.0
"""Distance of the share from one half, and its standard errors. Of three public files the furthest has 0.08."""


def check_alphabet(subject: Subject, sample: Sample) -> Outcome | None:
    """The share of pairs whose chosen response comes first in the alphabet; without any order it is one half."""
    source = subject.source
    if not isinstance(source, DataSource) or source.complete is not None:
        return None
    rows = sorted({number * len(source.trees) // PAIRS for number in range(PAIRS)})
    pairs = [responses for row in rows if len(responses := source.trees[row].responses) == 2]
    if not pairs:
        return None
    texts = [tuple(subject.encoder.tokenizer.decode(list(ids)) for ids in pair) for pair in pairs]
    first = [chosen < rejected for chosen, rejected in texts if chosen != rejected]
    if len(first) < LEAST:
        return skipped(CHECK, f"fewer than {LEAST} pairs with different sides")
    share = sum(first) / len(first)
    z = (share - 0.5) * 2 * math.sqrt(len(first))
    told = f"of {len(first)} pairs the chosen response comes first in {share:.0%}, {z:+.1f} standard errors from half"
    if abs(share - 0.5) <= APART or abs(z) < CERTAIN:
        return made(CHECK, told)
    way = "first" if share > 0.5 else "last"
    message = f"In {max(share, 1 - share):.0%} of {len(first)} pairs the chosen response comes {way} in the alphabet."
    remedy = "See who made the labels: a sort, a set, or the first of equal scores decides where nothing else does."
    evidence = {"pairs": len(first), "share": share, "standard_errors": z}
    finding = Finding("sides-in-order", "warning", 0, message, remedy, evidence, "F25 of the catalogue")
    return made(CHECK, told, [finding])
