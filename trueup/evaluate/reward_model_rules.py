"""What the card of a reward model means: rules R01 to R03. Thresholds: docs/diagnoses.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trueup.health.findings import Finding, Severity

Card = Mapping[str, Any]

MIN_PAIRS, MAX_HALF_WIDTH = 300, 0.06
MAX_GAP, MAX_ECE = 0.15, 0.15
MAX_LENGTH_CORRELATION, MIN_ACCURACY = 0.5, 0.6
MAX_CHANGE = 1.0
"""Limits of R01; of R02; of R03 for length and for truncation."""

UNSOUND = frozenset({"rm-not-validated", "rm-at-chance", "rm-memorised"})
"""Rules below which a model must not be optimised against."""

_NEVER = "Do not optimise against this model"


def judge_reward_model(card: Card, step: int = 0) -> list[Finding]:
    """Apply rules R01 (not validated, at chance), R02 (memorised) and R03 (follows length, follows the cut).

    Args:
        card: what `reward_card` measured, or the same read back from JSON.
        step: the optimiser step after which the model was measured.
    """
    found = [finding for rule in RULES if (finding := rule(card, step)) is not None]
    return sorted(found, key=lambda finding: ("fatal", "warning", "note").index(finding.severity))


def not_validated(card: Card, step: int) -> Finding | None:
    """R01: no held-out pairs, or too few to know how often the model is right."""
    held = card.get("heldout")
    if held is None:
        message = f"{_NEVER}: it has no held-out pairs, so nobody knows how often it is right."
        remedy = f"Set data.validation to at least {MIN_PAIRS} pairs it is not trained on."
        return Finding("rm-not-validated", "warning", step, message, remedy, {}, "R01, F77 of the catalogue")
    accuracy = held["accuracy"]
    half = (accuracy["high"] - accuracy["low"]) / 2
    if accuracy["n"] >= MIN_PAIRS and half <= MAX_HALF_WIDTH:
        return None
    message = f"{_NEVER} yet: right on {_told(accuracy)} held-out pairs, its accuracy is known to +-{half:.2f} only."
    remedy = f"Hold out at least {MIN_PAIRS} pairs (for +-{MAX_HALF_WIDTH})."
    return Finding("rm-not-validated", "warning", step, message, remedy, dict(accuracy), "R01, F77 of the catalogue")


def at_chance(card: Card, step: int) -> Finding | None:
    """F77: on pairs it was not trained on, a coin may be as good."""
    held = card.get("heldout")
    if held is None or held["accuracy"]["low"] > 0.5:
        return None
    message = f"{_NEVER}: it is right on {_told(held['accuracy'])} held-out pairs, where a coin is right on half."
    remedy = "Train longer or on more pairs, begin from a better model, or check whether the labels mean anything."
    return Finding("rm-at-chance", "warning", step, message, remedy, dict(held["accuracy"]), "F77 of the catalogue")


def memorised(card: Card, step: int) -> Finding | None:
    """R02: right on what it was trained on, or sure, far more often than right on what it was not."""
    held = card.get("heldout")
    if held is None:
        return None
    train, test = card["train"]["accuracy"], held["accuracy"]
    gap, limit = train["estimate"] - test["estimate"], max(MAX_ECE, chance_error(test["n"]))
    recites = gap > MAX_GAP and train["low"] > test["high"]
    if not recites and held["ece"] <= limit:
        return None
    told = f"it is right on {_told(train)} training pairs and on {_told(test)} held-out ones, a gap of {gap:.2f}"
    unsure = (
        f"it is surer than it is right, or less, by {held['ece']:.2f} on average over {test['n']} held-out pairs "
        f"(calibration error; allowed: {limit:.2f})"
    )
    message = f"{_NEVER}: {told if recites else unsure}."
    remedy = (
        "More pairs, fewer optim.steps or a lower optim.learning_rate; a large reward.margin also makes it too sure."
    )
    evidence = {"gap": gap, "ece": held["ece"], "ece_limit": limit}
    return Finding("rm-memorised", "fatal", step, message, remedy, evidence, "R02, F69, F77 of the catalogue")


def chance_error(pairs: int) -> float:
    """A calibration error that a perfect judge hardly ever shows: half as much again as ``stats.calibration`` gives."""
    return 0.6 * (10 / pairs) ** 0.5


def follows_length(card: Card, step: int) -> Finding | None:
    """R03: the score goes with the length, or is wrong wherever the shorter response is wanted."""
    held = card.get("heldout")
    if held is None:
        return None
    correlation, shorter = held["length_correlation"], held.get("accuracy_chosen_shorter")
    wrong = shorter is not None and shorter["high"] < 0.5 and held["accuracy"]["estimate"] > MIN_ACCURACY
    if not wrong and (correlation is None or abs(correlation) <= MAX_LENGTH_CORRELATION):
        return None
    told = f"; where the shorter response is wanted it is right on {_told(shorter)}" if shorter else ""
    message = f"Within a pair the score goes with the length (rank correlation {correlation or 0:.2f}){told}."
    remedy = "Balance the pairs in length: a policy will be paid for its length, and not for what it says."
    evidence = {"length_correlation": correlation, "accuracy_chosen_shorter": shorter}
    return Finding("rm-follows-length", "warning", step, message, remedy, evidence, "R03, F76 of the catalogue")


def follows_the_cut(card: Card, step: int) -> Finding | None:
    """R03: cutting a response changes its score by more than responses differ.

    A note where the terminator put behind the cut takes most of the change away: so it is with every model that was
    trained on responses that end, and nothing is wrong until rollouts are cut.
    """
    found = (card.get("heldout") or {}).get("truncation")
    if found is None:
        return None
    beyond = [ending for ending in ("ended", "cut_off") if found[ending]["mean_absolute_change"] > MAX_CHANGE]
    if not beyond:
        return None
    worst = max(beyond, key=lambda ending: found[ending]["mean_absolute_change"])
    of = found[worst]
    severity: Severity = "warning" if "ended" in beyond else "note"
    how = "cut off without their terminator" if worst == "cut_off" else "cut and ended"
    message = (
        f"The scores of responses that are {how} lie {of['mean_absolute_change']:.2f} standard deviations "
        f"({of['mean_absolute_change'] * found['score_sd']:.3g}) from those of the whole responses; "
        f"{of['beats_whole']:.0%} of the cuts score higher."
    )
    remedy = (
        "Let rollouts end (raise rollout.decoding.max_new_tokens), keep rollout.missing_eos_penalty above this change, "
        "or set rollout.mask_truncated. Compare responses only under one cap."
    )
    evidence = {"ending": worst, **{name: value for name, value in of.items() if name != "cuts"}}
    return Finding("rm-follows-the-cut", severity, step, message, remedy, evidence, "R03, F79 of the catalogue")


RULES: tuple[Callable[[Card, int], Finding | None], ...] = (
    not_validated,
    at_chance,
    memorised,
    follows_length,
    follows_the_cut,
)
"""In the order of a report."""


def _told(accuracy: Mapping[str, Any]) -> str:
    return f"{accuracy['estimate']:.2f} [{accuracy['low']:.2f}, {accuracy['high']:.2f}] of {accuracy['n']}"
