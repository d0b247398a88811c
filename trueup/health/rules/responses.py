"""The form of what is sampled: length, ends, and how much of it is trained on."""

from __future__ import annotations

from trueup.health.findings import Finding
from trueup.health.limit import Limit
from trueup.health.rule import ONLINE, Rule, RunLog, all_of
from trueup.health.signals import Point, latest, middle, start
from trueup.health.thresholds import ROLLOUTS, threshold

LENGTH, CUT, LEFT_OUT = "completions/mean_length", "completions/clipped_ratio", "rollout/unused_truncated"
FIRST = 3
"""Rollouts that say what samples were like at the start."""


def length_change(log: RunLog) -> Point | None:
    """K05: median length of the last rollouts against the start, as a factor up or down."""
    began, now = start(log, LENGTH, FIRST), middle(log, LENGTH, ROLLOUTS)
    if not began or now is None or now[1] <= 0:
        return None
    return now[0], max(now[1] / began, began / now[1])


DRIFT = Limit("length-drift", length_change)


def length_drift(log: RunLog) -> Finding | None:
    """K05, F61, F97: responses have become twice as long, or half."""
    hit, began, now = DRIFT.exceeded(log), start(log, LENGTH, FIRST), middle(log, LENGTH, ROLLOUTS)
    if hit is None or began is None or now is None:
        return None
    message = f"Responses have {now[1]:.0f} tokens; at the start they had {began:.0f}."
    remedy = "Report a score at equal length. If it was not meant, look for a reward or a mean that pays for length."
    evidence = {LENGTH: now[1], "start": began, "bound": hit.bound}
    return Finding("length-drift", hit.severity, hit.step, message, remedy, evidence, "rule K05; F61, F97")


def cut_share(log: RunLog) -> Point | None:
    """Median share of responses cut off, of the last rollouts."""
    return middle(log, CUT, ROLLOUTS)


SHARE = Limit("truncation", cut_share)


def truncation(log: RunLog) -> Finding | None:
    """F08, F111: most responses end at the cap and not by themselves."""
    hit = SHARE.exceeded(log)
    if hit is None:
        return None
    message = f"{hit.value:.0%} of the responses are cut off at the cap; their reward is that of a beginning."
    remedy = (
        "Raise rollout.decoding.max_new_tokens. If the text does end, the terminator is not among the known ones, or "
        "the start never learned to write it."
    )
    return Finding("truncation", hit.severity, hit.step, message, remedy, hit.evidence(CUT), "F05, F08, F111")


def cut_growth(log: RunLog) -> Point | None:
    """K05: share cut off against the start's, which counts as at least half of what nobody minds."""
    began, now = start(log, CUT, FIRST), middle(log, CUT, ROLLOUTS)
    if began is None or now is None:
        return None
    floor = threshold("truncation-rise/floor") / threshold("truncation-rise/warning")
    return now[0], now[1] / max(began, floor)


GROWTH = Limit("truncation-rise", cut_growth)


def truncation_rise(log: RunLog) -> Finding | None:
    """K05: responses stop ending."""
    hit, now, began = GROWTH.exceeded(log), latest(log, CUT), start(log, CUT, FIRST)
    if hit is None or now is None or began is None:
        return None
    message = f"Ever more responses are cut off: {now[1]:.0%} in the latest rollout, {began:.0%} at the start."
    remedy = "Raise rollout.decoding.max_new_tokens or rollout.missing_eos_penalty, and read some of both kinds."
    evidence = hit.evidence("growth", **{CUT: now[1]})
    return Finding("truncation-rise", hit.severity, hit.step, message, remedy, evidence, "rule K05; F57, F82")


def left_out_share(log: RunLog) -> Point | None:
    """Median share cut off, of the last rollouts, in runs that do not train on what is cut off."""
    return middle(log, CUT, ROLLOUTS) if latest(log, LEFT_OUT) else None


MASKED = Limit("masked-responses", left_out_share)


def masked_responses(log: RunLog) -> Finding | None:
    """G05: most of what is sampled is left out of the update."""
    hit = MASKED.exceeded(log)
    if hit is None:
        return None
    message = f"{hit.value:.0%} of the responses are cut off and so not trained on: updates see short ones alone."
    remedy = "Raise rollout.decoding.max_new_tokens, or set rollout.mask_truncated: false."
    return Finding("masked-responses", hit.severity, hit.step, message, remedy, hit.evidence(CUT), "rule G05; F08")


RULES = (
    Rule("length-drift", "reward", ONLINE, all_of(LENGTH), length_drift),
    Rule("truncation", "rollout", ONLINE, all_of(CUT), truncation),
    Rule("truncation-rise", "rollout", ONLINE, all_of(CUT), truncation_rise),
    Rule("masked-responses", "rollout", ONLINE, all_of(CUT, LEFT_OUT), masked_responses),
)
LIMITS = (DRIFT, SHARE, GROWTH, MASKED)
