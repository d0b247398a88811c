"""What the loss and the margin of a preference log say together, where single pairs or their units are not logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean, median

from trueup.health.findings import Finding
from trueup.health.rule import DPO, Rule, RunLog, all_of
from trueup.health.rules.pairs import LOG_2, is_logistic
from trueup.health.rules_foreign.margin_unit import LOSS, MARGIN, margin_unit, paired, rounding

GONE = 0.01
"""Weight below which a pair counts as without a gradient (the specification's)."""
ENOUGH = 10
"""Logged steps that are needed to speak of a share of them."""


def margin_without_beta(log: RunLog) -> Finding | None:
    """D12: what is called a reward margin is the raw log-ratio difference."""
    unit = margin_unit(log)
    if unit is None or not unit.raw:
        return None
    rows = paired(log)
    raw = [margin for _, _, margin in rows]
    scaled = [unit.factor * margin for margin in raw]
    message = (
        f"The logged margin is the raw log-ratio difference; beta is not in it. In all {unit.steps} steps that can "
        f"tell, loss = softplus(-beta * margin) needs beta = {unit.factor:.4f} ({unit.low:.4f} to {unit.high:.4f}). "
        f"Raw, the margin has a median of {median(raw):.0f} and a maximum of {max(raw):.0f} nats; as a reward, of "
        f"{median(scaled):.1f} and {max(scaled):.1f} (mean {fmean(scaled):.1f})."
    )
    remedy = (
        "Compare it with no other tool's rewards/margins before multiplying by beta, and call it margin/raw. Ranges "
        "that are quoted as healthy mean nothing without the unit."
    )
    evidence = {
        "beta": unit.factor,
        "steps": unit.steps,
        "raw_median": median(raw),
        "raw_max": max(raw),
        "scaled_median": median(scaled),
        "scaled_mean": fmean(scaled),
        "scaled_max": max(scaled),
    }
    return Finding("margin-without-beta", "warning", rows[0][0], message, remedy, evidence, "rule D12")


def weights_of(log: RunLog) -> list[tuple[int, float]] | None:
    """Weights in the gradient, at most, at each logged step; None where the loss is not known to be logistic."""
    losses = [(step, loss) for step, loss in log.series.get(LOSS, ()) if math.isfinite(loss) and loss >= 0]
    if len(losses) < ENOUGH or not _logistic(log):
        return None
    return [(step, -math.expm1(-loss)) for step, loss in losses]


def gradient_gone(log: RunLog) -> Finding | None:
    """D05 from the loss alone: the weight of a pair is sigma(-h) = 1 - exp(-loss), and of several at most that."""
    points = weights_of(log)
    if points is None or log.series.get("gradient_weight/active"):  # which says it of each pair
        return None
    weights = [weight for _, weight in points]
    share = sum(weight < GONE for weight in weights) / len(weights)
    if share <= 0.5:
        return None
    mean, effective = fmean(weights), sum(weights) ** 2 / (len(weights) * sum(w * w for w in weights) or 1.0)
    message = (
        f"In {share:.0%} of the {len(weights)} logged steps the pairs weigh less than {GONE} in the gradient "
        f"(1 - exp(-loss)); the mean weight is {mean:.3f}, where an untrained policy has 0.5. The steps teach as "
        f"much as {effective:.0%} of them would with equal weights."
    )
    remedy = (
        "The loss is near 0 because nothing is left to learn from these pairs, not because the policy is good. See "
        "what the reference makes of the chosen responses (trueup preflight: healthy are 0.1 to 0.5 of a uniform "
        "model's surprise) and whether the sides have one author; a larger batch does not help. Then: fewer steps, or "
        "a loss with a finite target (ipo)."
    )
    evidence = {"share": share, "mean_weight": mean, "effective_share": effective, "steps": len(weights)}
    first = next(step for step, weight in points if weight < GONE)
    return Finding("gradient-gone", "warning", first, message, remedy, evidence, "rule D05")


def _logistic(log: RunLog) -> bool:
    """As the settings or the first loss say; or because the losses fit the margins."""
    return is_logistic(log) or ("preference.loss" not in log.settings and margin_unit(log) is not None)


def first_move(log: RunLog) -> tuple[int, float] | None:
    """The first step whose margin is not 0, and the margin; None where the loss is not known to be the logistic one."""
    moved = next(((step, margin) for step, _, margin in paired(log) if margin != 0), None)
    return moved if _logistic(log) else None


def exact_zero(log: RunLog) -> Finding | None:
    """D01 from a log: all pairs of a step have a margin of exactly 0, long after policy and reference parted."""
    rows, moved, slack = paired(log), first_move(log), max(rounding(log), 1e-7)
    if moved is None:
        return None
    zero = [
        (step, loss) for step, loss, margin in rows if margin == 0 and step > moved[0] and abs(loss - LOG_2) <= slack
    ]
    if not zero:
        return None
    step, loss = zero[0]
    others = f", and so at {len(zero) - 1} later steps" if len(zero) > 1 else ""
    message = (
        f"At step {step} the margin is exactly 0 and the loss {loss:.6f} = ln 2{others}. That is not a policy equal to "
        f"its reference: at step {moved[0]} the margin was already {moved[1]:.2f}; a policy that has moved gives "
        "two different responses different log-ratios. Chosen and rejected were the same tokens; the step taught "
        "nothing."
    )
    if any(at == step and value == 0 for at, value in log.series.get("rewards/accuracies", ())):
        message += " The accuracy of 0 there is a tie that was counted as wrong."
    remedy = (
        "Compare the token ids of the two sides: a sampler reproduces an answer that the reference has memorised, or "
        "truncation cut off what differed. Drop such pairs, and count ties apart."
    )
    share = len(zero) / len(rows)
    evidence = {"zero_steps": [at for at, _ in zero], "share": share, "moved_at": moved[0], "margin_then": moved[1]}
    return Finding("exact-zero-margin", "warning", step, message, remedy, evidence, "rule D01")


LOGGED_RULES: tuple[Rule, ...] = (
    Rule("margin-without-beta", "objective", DPO, all_of(LOSS, MARGIN), margin_without_beta),
    Rule("gradient-gone", "objective", DPO, all_of(LOSS), gradient_gone),
    Rule("exact-zero-margin", "data", DPO, all_of(LOSS, MARGIN), exact_zero),
)
"""Judged on the log as it is written; the rules of the monitor see it with its margins in our unit."""

MEASURES: Mapping[str, Callable[[RunLog], object | None]] = {
    "margin-without-beta": margin_unit,
    "gradient-gone": weights_of,
    "exact-zero-margin": first_move,
}
"""What each of them judges by; None where the log does not give it."""
