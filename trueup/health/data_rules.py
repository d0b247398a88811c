"""Judgement of a data audit's card: each rule returns a finding or None. Thresholds: docs/diagnoses.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trueup.health.findings import Finding
from trueup.health.template_rules import TEMPLATE_RULES, amount

Card = Mapping[str, Any]

FEW = 30
"""Prompts under which a difference between the sides is not judged."""


def judge_audit(card: Card) -> list[Finding]:
    """Apply every rule; the worst first, in the order of the rules within a severity.

    Args:
        card: what `data.audit.audit` measured, or the same read back from JSON.
    """
    rules = RULES + (TEMPLATE_RULES if "template" in card else ())
    found = [finding for rule in rules if (finding := rule(card)) is not None]
    return sorted(found, key=lambda finding: ("fatal", "warning", "note").index(finding.severity))


def repeated_rows(card: Card) -> Finding | None:
    """Rows that say what an earlier row says."""
    found = card["repeats"]["identical_rows"]
    if not found["count"]:
        return None
    message = (
        f"{amount(found, 'rows')} everything is as in an earlier row: it weighs double, and a split may cut through it."
    )
    remedy = "Remove the repetitions, unless the weight is meant."
    severity = "warning" if found["share"] >= 0.01 else "note"
    return Finding("repeated-rows", severity, 0, message, remedy, found, "house rule")


def repeated_prompts(card: Card) -> Finding | None:
    """Prompts with several rows: harmless in training, a leak where validation is split off by row."""
    found = card["repeats"]["repeated_prompts"]
    if not found["count"]:
        return None
    message = (
        f"{amount(found, 'rows')} the prompt is another row's too: {found['prompts']} different prompts, at most "
        f"{found['largest']} rows each."
    )
    remedy = "Split off validation rows by prompt, not by row."
    return Finding("repeated-prompts", "note", 0, message, remedy, found, "F23 of the catalogue")


def contradictory_rows(card: Card) -> Finding | None:
    """The same two responses, or the same response, judged both ways."""
    found = card["contradictions"]["reversed"]
    if not found["count"]:
        return None
    message = (
        f"{amount(found, 'rows')} an earlier verdict is reversed: same prompt, same responses, the other one wanted."
    )
    remedy = "Decide which is right, or remove both: together they teach nothing."
    severity = "warning" if found["share"] >= 0.005 else "note"
    return Finding("contradictory-rows", severity, 0, message, remedy, found, "F12 of the catalogue")


def response_on_both_sides(card: Card) -> Finding | None:
    """A response that is chosen in one pair and rejected in another of the same prompt."""
    found = card["contradictions"]["both_sides"]
    if not found["count"]:
        return None
    message = f"{amount(found, 'rows')} the chosen response is rejected by another row with the same prompt."
    remedy = "Right if the pairs were cut from a ranking (A over B, B over C); check it if they were not."
    return Finding("response-on-both-sides", "note", 0, message, remedy, found, "house rule")


def near_identical_pairs(card: Card) -> Finding | None:
    """Sides that differ in white space or case only: the preference is for the layout."""
    found = (card["likeness"] or {}).get("near_identical")
    if not found or not found["count"]:
        return None
    message = f"{amount(found, 'rows')} the sides differ in white space or case alone."
    remedy = "Remove them: what they teach is layout, and near-equal sides push both down (displacement)."
    severity = "warning" if found["share"] >= 0.005 else "note"
    return Finding("near-identical-pairs", severity, 0, message, remedy, found, "F10 of the catalogue")


def cut_copies(card: Card) -> Finding | None:
    """One side is the beginning of the other."""
    found = (card["likeness"] or {}).get("begins_with")
    if not found or not found["count"]:
        return None
    message = f"{amount(found, 'rows')} one side is the beginning of the other."
    remedy = "See whether one was cut off when it was sampled or stored; such pairs teach when to stop, nothing else."
    severity = "warning" if found["share"] >= 0.05 else "note"
    return Finding("cut-copies", severity, 0, message, remedy, found, "house rule")


def rows_left_out(card: Card) -> Finding | None:
    """Rows that the reader dropped, equal sides among them."""
    dropped = card["reading"]["dropped"]
    count = sum(found["count"] for found in dropped.values())
    if not count:
        return None
    share = count / (count + card["rows"])
    reasons = "; ".join(f"{found['count']} {reason}" for reason, found in dropped.items())
    message = f"{count} of {count + card['rows']} rows ({share:.1%}) cannot be used and are left out: {reasons}."
    remedy = "If they are many, check how the file was made."
    severity = "warning" if share >= 0.01 else "note"
    return Finding(
        "rows-left-out", severity, 0, message, remedy, {"share": share, **dropped}, "F10, F14 of the catalogue"
    )


def unused_columns(card: Card) -> Finding | None:
    """Columns that nothing reads."""
    names = card["reading"]["unused"]
    if not names:
        return None
    message = f"Columns that nothing uses: {', '.join(names)}."
    remedy = "Rename one if it holds what training should see (docs/data.md); a 'split' column does not split anything."
    return Finding("unused-columns", "note", 0, message, remedy, {"columns": names}, "house rule")


def evaluation_overlap(card: Card) -> Finding | None:
    """Evaluation prompts that are in training."""
    found = card.get("overlap")
    if not found:
        return None
    exact, near, passage = (found[name] for name in ("exact", "near", "passage"))
    if not exact["count"] + near["count"] + passage["count"]:
        return None
    message = (
        f"Of {found['prompts']} prompts of {found['file']}, {exact['count']} are training prompts, {near['count']} "
        f"nearly so, and {passage['count']} more share 13 words in a row with one."
    )
    remedy = "Remove them from one of the two: a score on trained prompts does not say how other prompts are answered."
    seen = exact["share"] + near["share"]
    severity = "fatal" if seen >= 0.1 else "warning" if exact["count"] or near["share"] >= 0.01 else "note"
    return Finding("evaluation-overlap", severity, 0, message, remedy, found, "F23 of the catalogue")


def length_bias(card: Card) -> Finding | None:
    """Length alone tells the sides apart."""
    found = card["length_bias"]
    if found is None or found["longer_wins"]["n"] < FEW:
        return None
    wins = found["longer_wins"]
    low, high, rate = wins["low"], wins["high"], wins["estimate"]
    if low <= 0.5 <= high or abs(rate - 0.5) < 0.05:
        return None
    longer = rate > 0.5
    told, low, high = (rate, low, high) if longer else (1 - rate, 1 - high, 1 - low)
    way, unit = "longer" if longer else "shorter", found["unit"]
    message = (
        f"'The {way} response wins' is right on {told:.1%} [{low:.1%}, {high:.1%}] of the comparisons: wanted "
        f"responses have {found['wanted']['mean']:.0f} {unit}, unwanted ones {found['unwanted']['mean']:.0f} (means)."
    )
    remedy = (
        "A reward model must beat that rule to be worth anything. Balance the pairs in length, or try preference.loss: "
        "sigmoid_norm; compare results among answers of equal length."
    )
    severity = "warning" if abs(rate - 0.5) >= 0.1 else "note"
    return Finding("length-bias", severity, 0, message, remedy, found, "D08, F11 of the catalogue")


def separable_sides(card: Card) -> Finding | None:
    """A model of text pieces, blind to the prompt, tells the sides apart."""
    found = card["separability"]
    if found is None or found["accuracy"]["low"] <= 0.6:
        return None
    accuracy = found["accuracy"]
    pieces = ", ".join(
        f"{piece['piece']!r} {piece['wanted']:.0%} against {piece['unwanted']:.0%}" for piece in found["telling"][:3]
    )
    message = (
        f"A linear model of short text pieces that never sees the prompt ranks {accuracy['estimate']:.1%} "
        f"[{accuracy['low']:.1%}, {accuracy['high']:.1%}] of held-out comparisons right. Most telling (wanted against "
        f"unwanted): {pieces}."
    )
    remedy = "If the sides come from different writers, training learns the writer. Sample both sides from one policy."
    severity = "warning" if accuracy["estimate"] >= 0.8 else "note"
    return Finding("separable-sides", severity, 0, message, remedy, found, "D04, F11 of the catalogue")


def surface_tells(card: Card) -> Finding | None:
    """Openings, lists, endings that one side has more often."""
    named = {
        name: tell
        for name, tell in card["tells"].items()
        if tell["difference"]["low"] is not None
        and tell["difference"]["n"] >= FEW
        and abs(tell["difference"]["estimate"]) >= 0.05
        and (tell["difference"]["low"] > 0 or tell["difference"]["high"] < 0)
    }
    if not named:
        return None
    worst = sorted(named, key=lambda name: -abs(named[name]["difference"]["estimate"]))
    shares = "; ".join(f"{name} {named[name]['wanted']:.0%} against {named[name]['unwanted']:.0%}" for name in worst)
    message = f"The sides differ on the surface (share of wanted against unwanted responses): {shares}."
    remedy = "If it is not what you mean to teach, balance it, and watch it in evaluation: it will be amplified."
    size = abs(named[worst[0]]["difference"]["estimate"])
    severity = "warning" if size >= 0.2 else "note"
    return Finding("surface-tells", severity, 0, message, remedy, named, "F11 of the catalogue")


def template_markers(card: Card) -> Finding | None:
    """Markers of a chat format inside responses."""
    found = card["markers"]
    if not found["count"]:
        return None
    message = f"{amount(found, 'responses')} there is a marker of a chat format: a further turn was not cut off."
    remedy = (
        "Cut the responses before the marker, or remove the rows: the model learns to write the other side's turns."
    )
    severity = "warning" if found["share"] >= 0.001 else "note"
    return Finding("template-markers", severity, 0, message, remedy, found, "F20 of the catalogue")


RULES: tuple[Callable[[Card], Finding | None], ...] = (
    evaluation_overlap,
    rows_left_out,
    repeated_rows,
    contradictory_rows,
    near_identical_pairs,
    cut_copies,
    template_markers,
    length_bias,
    separable_sides,
    surface_tells,
    response_on_both_sides,
    repeated_prompts,
    unused_columns,
)
"""In the order of a report."""
