"""Where implicit rewards start and which way they go: no movement, a false start, a wrong sign, false units."""

from __future__ import annotations

import math
from statistics import fmean, median

from trueup.health.findings import Finding, Severity
from trueup.health.limit import Limit
from trueup.health.rule import DPO, PREFERENCE, Rule, RunLog, all_of, any_of
from trueup.health.rules.pairs import PER_TOKEN, is_logistic, of_rejected_alone
from trueup.health.signals import Point, first, last, middle, standard_errors, together, values
from trueup.health.thresholds import START, WINDOW, threshold

LONG = 50
"""Steps over which a sign is judged."""

MOST = 200
"""Most steps that count as a run's beginning."""


def largest_reward(log: RunLog) -> Point | None:
    """Largest implicit reward of the last steps, in size; not where the reference moves after the policy."""
    chosen = last(log, "rewards/chosen", WINDOW)
    if not chosen or chosen[0][0] == 1 or log.settings.get("preference.sync_every"):
        return None
    rejected = [value for _, value in log.series.get("rewards/rejected", ())[-WINDOW:]]
    return chosen[0][0], max(abs(value) for value in [*values(chosen), *rejected])


STUCK = Limit("stuck-at-start", largest_reward, below=True)


def stuck_at_start(log: RunLog) -> Finding | None:
    """F35, F49, F50: after many updates policy and reference still give the same numbers."""
    hit = STUCK.exceeded(log)
    if hit is None:
        return None
    message = f"After {WINDOW} updates and more, no implicit reward is above {hit.value:.0e}: policy = reference."
    remedy = (
        "Either nothing is trained (frozen weights, adapters off, updates lost in bfloat16), or the reference is the "
        "policy itself. A tool that counts ties as wrong logs an accuracy of 0 then, trueup 0.5."
    )
    return Finding("stuck-at-start", hit.severity, hit.step, message, remedy, hit.evidence("reward"), "F35, F49, F50")


def first_reward(log: RunLog) -> Point | None:
    """Size of the implicit rewards in the first step, before any update; not where a reference was named."""
    if any(log.settings.get(key) for key in ("preference.reference", "kto.reference")):
        return None
    found = [first(log, name, 1) for name in ("rewards/chosen", "rewards/rejected")]
    sizes = [abs(value) for points in found for step, value in points if step <= 1]
    return (1, max(sizes)) if sizes else None


FIRST = Limit("off-reference-start", first_reward)


def off_reference_start(log: RunLog) -> Finding | None:
    """F37: before the first update policy and reference differ by more than their dtypes can."""
    hit = FIRST.exceeded(log)
    if hit is None:
        return None
    message = f"In the first step an implicit reward is already {hit.value:.2f}; it should be 0."
    remedy = "The reference is not the model that training starts from: check adapters, checkpoint, dropout, template."
    evidence = hit.evidence("reward")
    return Finding("off-reference-start", hit.severity, hit.step, message, remedy, evidence, "F34, F37")


def early_loss(log: RunLog) -> Point | None:
    """The lowest that the median of five losses is within the first tenth of the run."""
    steps = log.settings.get("optim.steps")
    until = threshold("instant-zero-loss/share") * steps if steps else 0.0
    early = [point for point in log.series.get("loss", ())[: min(int(until), MOST)] if point[0] <= until]
    if len(early) < START or not is_logistic(log):
        return None
    windows = [early[at : at + START] for at in range(0, len(early) - START + 1, START)]
    lowest, step = min((median(values(window)), window[0][0]) for window in windows)
    return step, lowest


EARLY = Limit("instant-zero-loss", early_loss, below=True)


def instant_zero_loss(log: RunLog) -> Finding | None:
    """F58: solved before it began. A warning where something else is odd, else a note: pairs can be easy."""
    hit = EARLY.exceeded(log)
    if hit is None:
        return None
    far = PER_TOKEN.exceeded(log) is not None and not of_rejected_alone(log)
    odd = far or FIRST.exceeded(log) is not None
    severity: Severity = "warning" if odd else "note"
    message = f"The loss is {hit.value:.3f} within the first tenth of the run."
    remedy = (
        "See whether a rule could tell the sides apart (trueup data audit: separable sides, lengths), whether the "
        "reference is right, and whether the learning rate is. Easy pairs do it too."
    )
    return Finding("instant-zero-loss", severity, hit.step, message, remedy, hit.evidence("loss", far=far), "F58")


def margins_of(log: RunLog, count: int) -> list[tuple[int, float]]:
    """Margins of the last steps: as recorded, else chosen less rejected."""
    for name in ("rewards/margins", "margin"):
        if log.series.get(name):
            return list(last(log, name, count))
    rows = [(s, one - two) for s, one, two in together(log, "rewards/chosen", "rewards/rejected", count)]
    return rows if len(rows) >= count // 2 else []


def margin_sign(log: RunLog) -> Point | None:
    """Mean margin of the last 50 steps in its standard errors."""
    recent = margins_of(log, LONG)
    return (recent[0][0], standard_errors(values(recent))) if recent else None


SIGN = Limit("wrong-way", margin_sign, below=True)


def wrong_way(log: RunLog) -> Finding | None:
    """F12, F94: training makes the wanted responses less probable than the unwanted ones."""
    hit = SIGN.exceeded(log)
    if hit is None:
        return None
    name = next((n for n in ("rewards/accuracies", "accuracy") if log.series.get(n)), None)
    accuracy = fmean(values(last(log, name, LONG))) if name and last(log, name, LONG) else None
    if accuracy is not None and accuracy >= threshold("wrong-way/coin"):
        return None  # most pairs are ranked right: a few margins far below 0 make the mean
    worse = accuracy is None or accuracy < threshold("wrong-way/accuracy")
    severity: Severity = "fatal" if hit.severity == "fatal" and worse else "warning"
    message = f"Over {LONG} steps the mean margin is {-hit.value:.0f} standard errors below 0: it learns the opposite."
    remedy = (
        "Look at some rows: trueup data show FILE --model MODEL. If the better answer stands in rejected, exchange the "
        "columns; if not, the sign of the loss is wrong."
    )
    evidence = hit.evidence("standard_errors", accuracy=accuracy)
    return Finding("wrong-way", severity, hit.step, message, remedy, evidence, "F12, F94")


def unit_error(log: RunLog) -> Point | None:
    """D12: how far the scaled margin is from beta times the raw one; beta as set, else as in the first values."""
    rows = together(log, "rewards/margins", "margin/raw")
    beta = log.settings.get("preference.beta")
    if beta is None:
        early = zip(first(log, "rewards/margins", WINDOW), first(log, "margin/raw", WINDOW), strict=False)
        ratios = [scaled / raw for (_, scaled), (_, raw) in early if abs(raw) > 1e-3]
        beta = median(ratios) if ratios else None
    if beta is None or len(rows) < WINDOW:
        return None
    errors = [abs(scaled - beta * raw) / (abs(beta * raw) + 0.01) for _, scaled, raw in rows]
    return rows[0][0], median(errors)


def jensen_gap(log: RunLog) -> Point | None:
    """How far the loss is below softplus(-mean margin), which by Jensen no mean of softplus(-margin) can be."""
    rows = together(log, "loss", "rewards/margins")
    if len(rows) < WINDOW or not is_logistic(log):
        return None
    return rows[0][0], median(_softplus(-margin) - loss for _, loss, margin in rows)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


UNITS = Limit("margin-units", unit_error)
JENSEN = Limit("loss-margin", jensen_gap)


def margin_units(log: RunLog) -> Finding | None:
    """D12, F41: the margin that is logged is not beta times the raw one."""
    hit = UNITS.exceeded(log)
    if hit is None:
        return None
    message = f"rewards/margins is {hit.value:.0%} off beta times margin/raw: one of them has another unit."
    remedy = "Find which of the two has beta wrong; until then compare runs by margin/raw."
    return Finding("margin-units", hit.severity, hit.step, message, remedy, hit.evidence("error"), "rule D12; F41")


def loss_margin(log: RunLog) -> Finding | None:
    """F41, F54: the loss cannot be the logistic loss of these margins."""
    hit, margin = JENSEN.exceeded(log), middle(log, "rewards/margins")
    if hit is None or margin is None:
        return None
    message = f"The loss is {hit.value:.3f} below what a logistic loss can be with such margins ({margin[1]:.3f})."
    remedy = "Find where margins are multiplied by beta twice, or which loss really runs (preference.loss)."
    evidence = hit.evidence("below_bound", **{"rewards/margins": margin[1]})
    return Finding("loss-margin", hit.severity, hit.step, message, remedy, evidence, "rule D12; F41, F54")


def margin_sides(log: RunLog) -> Finding | None:
    """F142: the margin that is logged is not the chosen side's reward less the rejected side's."""
    margins, sides = dict(last(log, "rewards/margins", WINDOW)), together(log, *BOTH)
    rows = [(step, margins[step], chosen - rejected) for step, chosen, rejected in sides if step in margins]
    if len(rows) < WINDOW:
        return None
    gap = median(abs(margin - apart) / (abs(margin) + 0.01) for _, margin, apart in rows)
    if gap <= threshold("margin-sides/tolerance"):
        return None
    message = (
        f"rewards/margins is {gap:.0%} off rewards/chosen less rewards/rejected: the names do not fit the numbers."
    )
    remedy = "Find which of the three is logged under another's name before reading any of them."
    return Finding("margin-sides", "fatal", rows[0][0], message, remedy, {"error": gap}, "F142")


BOTH = ("rewards/chosen", "rewards/rejected")
RULES = (
    Rule("stuck-at-start", "reference", PREFERENCE, all_of("rewards/chosen"), stuck_at_start),
    Rule("off-reference-start", "reference", PREFERENCE, any_of(*BOTH), off_reference_start),
    Rule("instant-zero-loss", "data", DPO, all_of("loss"), instant_zero_loss),
    Rule(
        "wrong-way",
        "objective",
        PREFERENCE | {"reward"},
        (*any_of("rewards/margins", "margin"), frozenset(BOTH)),
        wrong_way,
    ),
    Rule("margin-units", "objective", DPO, all_of("rewards/margins", "margin/raw"), margin_units),
    Rule("margin-sides", "numbers", DPO, all_of("rewards/margins", *BOTH), margin_sides),
    Rule("loss-margin", "objective", DPO, all_of("loss", "rewards/margins"), loss_margin),
)
LIMITS = (STUCK, FIRST, EARLY, SIGN, UNITS, JENSEN)
