"""What is known of the reward models that a run is about to optimise against: the cards that they were trained with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from trueup.evaluate.reward_model_rules import UNSOUND, judge_reward_model
from trueup.health.findings import Finding
from trueup.recipes.rewards import LoadedPart

CARD = "reward_model.json"


def card_findings(parts: Sequence[LoadedPart], dtype: str) -> list[Finding]:
    """Say before the first step which reward models must not be optimised against, and of which nothing is known.

    Args:
        parts: of the reward; those that are no model are passed over.
        dtype: that the models were loaded in.
    """
    unsound: dict[str, list[str]] = {}
    unknown: dict[str, str] = {}
    for part in parts:
        if not isinstance(part.source, nn.Module):
            continue
        where = part.given.target
        card, problem = _card(Path(where), part, dtype)
        bad = [finding for finding in judge_reward_model(card) if finding.rule in UNSOUND] if card else []
        if problem:
            unknown[where] = problem
        elif bad:
            unsound[where] = [f"{finding.rule}: {finding.message}" for finding in bad]
    return _unsound(unsound) + _unknown(unknown)


def _card(folder: Path, part: LoadedPart, dtype: str) -> tuple[dict[str, Any], str]:
    """The card of a model, or an empty one and why there is none."""
    files = [place / CARD for place in (folder, folder.resolve().parent)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return {}, f"there is no {CARD} in it or beside it"
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        judge_reward_model(card)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"{file} cannot be read ({type(error).__name__})"
    if card.get("dtype") == dtype and card.get("weights") != part.identity:
        return {}, f"{file} is the card of other weights"
    return card, ""


def _unsound(found: dict[str, list[str]]) -> list[Finding]:
    if not found:
        return []
    message = " ".join(f"{where}: {' '.join(reasons)}" for where, reasons in found.items())
    remedy = "Train a better one first (its reward_model.html says how), or judge this run by another judge."
    return [Finding("reward-model-unsound", "warning", 0, message, remedy, {"models": found}, "R01, R02, F77, F78")]


def _unknown(found: dict[str, str]) -> list[Finding]:
    if not found:
        return []
    told = "; ".join(f"{where}: {why}" for where, why in found.items())
    message = f"Nothing is known of the reward model ({told})."
    remedy = "What 'trueup reward' trains has a card; measure the accuracy of others yourself, on held-out pairs."
    return [Finding("reward-model-unknown", "note", 0, message, remedy, {"models": found}, "R01, F78")]
