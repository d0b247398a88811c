"""What two or more logs say together: what beta did, and what belongs to the examples and not to the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from statistics import fmean, median

from trueup.health.findings import Finding
from trueup.health.rule import RunLog

MARGIN, BETA = "rewards/margins", "preference.beta"
LEAST = 8
"""Steps that two logs must share."""
TOGETHER = 0.8
"""Rank correlation of two logs from which their ups and downs are called common."""

CHANGES = 0.6
"""Rank correlation of the changes from step to step that must go with it."""

Named = tuple[str, RunLog]
"""What to call a log, and the log with its margins scaled by beta."""


def beta_direction(logs: Sequence[Named]) -> Finding | None:
    """D13: with a higher beta the raw margin is smaller and the margin in the units of the loss is larger."""
    known = sorted((float(log.settings[BETA]), name, log) for name, log in logs if log.settings.get(BETA))
    if len(known) < 2 or known[0][0] == known[-1][0]:
        return None
    (low, low_name, weak), (high, high_name, strong) = known[0], known[-1]
    steps, one, two = _common(weak, strong)
    if len(steps) < LEAST:
        return None
    raw = [value / low for value in one], [value / high for value in two]
    if not (fmean(raw[1]) < fmean(raw[0]) and fmean(two) > fmean(one)):
        return None
    message = (
        f"From beta {low:g} ({low_name}) to {high:g} ({high_name}) the raw margin fell, from a mean of "
        f"{fmean(raw[0]):.0f} to {fmean(raw[1]):.0f} nats and a maximum of {max(raw[0]):.0f} to {max(raw[1]):.0f}; but "
        f"the beta-scaled margin, which is what the loss sees, rose: mean {fmean(one):.1f} to {fmean(two):.1f}, "
        f"maximum {max(one):.1f} to {max(two):.1f} (median {median(one):.1f} to {median(two):.1f})."
    )
    remedy = (
        "Do not read the fall of the raw margin as a cure. Compare margins in the units of the loss, and measure the "
        "KL on samples of each policy, which must fall as beta rises. Where other settings differ too, none of this is "
        "due to beta alone."
    )
    evidence = {
        "beta": [low, high],
        "raw_mean": [fmean(raw[0]), fmean(raw[1])],
        "raw_max": [max(raw[0]), max(raw[1])],
        "scaled_mean": [fmean(one), fmean(two)],
        "scaled_max": [max(one), max(two)],
    }
    return Finding("beta-direction", "warning", steps[0], message, remedy, evidence, "rule D13")


def same_examples(logs: Sequence[Named]) -> Finding | None:
    """Two runs rise and fall at the same steps: they see the same pairs in the same order."""
    from trueup.stats.association import spearman

    for (one, first), (two, second) in combinations(logs, 2):
        steps, left, right = _common(first, second)
        if len(steps) < LEAST:
            continue
        rho, of_changes = spearman(left, right), spearman(_changes(left), _changes(right))
        if rho >= TOGETHER and of_changes >= CHANGES:  # two runs that merely both rise correlate in the first alone
            message = (
                f"Step by step the margins of {one} and {two} have a rank correlation of {rho:.2f} over {len(steps)} "
                f"steps, and their changes from step to step one of {of_changes:.2f}. What makes them rise and fall is "
                "the pair of that step, the same in both, and not the training."
            )
            remedy = (
                "Read no trend into single logged steps, and no health into single negative margins: a pair that is "
                "ranked wrong by both is a hard pair. Log means over many pairs, or over a held-out set."
            )
            evidence = {"spearman": rho, "spearman_of_changes": of_changes, "steps": len(steps)}
            return Finding("same-examples", "note", steps[0], message, remedy, evidence, "house rule")
    return None


def _changes(values: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(values)]


def _common(one: RunLog, two: RunLog) -> tuple[list[int], list[float], list[float]]:
    """Steps at which both have a margin, and the margins."""
    left, right = dict(one.series.get(MARGIN, ())), dict(two.series.get(MARGIN, ()))
    steps = [step for step in left if step in right]
    return steps, [left[step] for step in steps], [right[step] for step in steps]


SEVERAL_RULES: tuple[Callable[[Sequence[Named]], Finding | None], ...] = (beta_direction, same_examples)
"""Judged over all logs that are given together."""
