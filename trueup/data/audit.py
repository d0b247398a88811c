"""The audit of a file of training data: everything that can be counted before a run, as one card of numbers.

Nothing is judged here: `health.data_rules` turns the card into findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trueup.data.audit_bias import length_bias, markers, tells
from trueup.data.audit_overlap import overlap
from trueup.data.audit_repeats import contradictions, likeness, repeats
from trueup.data.audit_separable import separability
from trueup.data.audit_sheet import Kind, make_sheet, tally
from trueup.data.audit_tokens import TokenAudit
from trueup.data.records import Dropped, Loaded, Prompt
from trueup.data.template import Encoder


def audit(
    kind: Kind,
    loaded: Loaded[Any],
    encoder: Encoder | None = None,
    context: int | None = None,
    against: Loaded[Any] | None = None,
) -> dict[str, Any]:
    """Measure a file; the card can be written as JSON.

    Args:
        kind: what its rows are.
        loaded: what a reader made of it.
        encoder: of the model that is to be trained; without it, lengths are in characters and no template is looked at.
        context: positions of that model, if known.
        against: prompts of an evaluation.
    """
    sheet = make_sheet(kind, loaded.records)
    card: dict[str, Any] = {
        "file": loaded.path,
        "kind": kind,
        "shape": loaded.shape,
        "rows": len(sheet.where),
        "reading": {"dropped": _dropped(loaded), "unused": list(loaded.unused)},
        "repeats": repeats(sheet),
        "contradictions": contradictions(sheet),
        "likeness": likeness(sheet),
        "markers": markers(sheet),
        "tells": tells(sheet),
        "separability": separability(sheet),
    }
    lengths: Sequence[Sequence[int]] = [[len(text) for text in side.texts] for side in (sheet.wanted, sheet.unwanted)]
    unit = "characters"
    if encoder is not None:
        tokens = TokenAudit(sheet, encoder)
        card |= {"lengths": tokens.lengths(context), "template": tokens.template()}
        unit, lengths = "tokens", [[len(ids) for ids in side] for side in (tokens.wanted, tokens.unwanted)]
    card["length_bias"] = length_bias(sheet, lengths[0], lengths[1], unit)
    if against is not None:
        card["overlap"] = {"file": against.path} | _overlap(sheet.prompts, sheet.where, against)
    return card


def _dropped(loaded: Loaded[Any]) -> dict[str, Any]:
    """Reason -> tally of the rows that the reader left out."""
    rows = list(loaded.rows)
    numbers: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 1):
        if isinstance(row, Dropped):
            numbers.setdefault(row.reason, []).append(f"{loaded.path} row {number}")
    return {reason: tally(places, len(rows)) for reason, places in numbers.items()}


def _overlap(prompts: Sequence[Prompt], places: Sequence[str], against: Loaded[Any]) -> dict[str, Any]:
    asked = [(record.prompt, record.where) for record in against.records]
    return overlap(prompts, places, [prompt for prompt, _ in asked], [where for _, where in asked])
