"""Preference optimisation: margins that go too far, pairs that teach nothing, confidence without ground."""

from __future__ import annotations

import math
from statistics import fmean, median

from trueup.health.findings import Finding
from trueup.health.limit import Hit, Limit
from trueup.health.rule import DPO, Rule, RunLog, all_of, any_of
from trueup.health.signals import Point, beta_of, first, last, latest, measured, middle, start, together, values
from trueup.health.thresholds import WINDOW, threshold

LOG_2 = math.log(2)
"""The logistic loss of a pair whose margin is 0."""


def is_logistic(log: RunLog) -> bool:
    """Is the loss DPO's own? As the settings say, else by a first loss of about log 2, in whatever dtype."""
    smoothing, named = log.settings.get("preference.label_smoothing"), log.settings.get("preference.loss")
    if named is not None:
        plain = not smoothing and log.settings.get("preference.weighting", "none") == "none"
        return named == "sigmoid" and plain and log.settings.get("preference.divergence", "reverse_kl") == "reverse_kl"
    began = start(log, "loss", 1)
    return began is not None and abs(began - LOG_2) < 0.05


def active_share(log: RunLog) -> Point | None:
    """Median share of pairs that still have a gradient."""
    return middle(log, "gradient_weight/active")


def scaled_margin(log: RunLog) -> Point | None:
    """Median beta-scaled margin."""
    return middle(log, "rewards/margins")


ACTIVE = Limit("saturation", active_share, below=True)


def saturation(log: RunLog) -> Finding | None:
    """D05, F56: most pairs have no gradient left; fatal where the margin says the same by far.

    A note where held-out pairs are ranked right nearly as always: then the pairs are easy, and this one is done.
    """
    margin = scaled_margin(log)
    hit = ACTIVE.exceeded(log) if measured(log, "gradient_weight/active") else _far_margin(margin)
    held_out = latest(log, "eval/rewards/accuracies")
    if hit is None:
        return None
    far = margin is not None and margin[1] > threshold("saturation/margin-fatal")
    shown = math.nan if margin is None else margin[1]
    known = measured(log, "gradient_weight/active") > 0
    share = (
        f"Only {hit.value:.0%} of the pairs still have a gradient (weight over 0.01)"
        if known
        else "Hardly any gradient is left"
    )
    message = f"{share}: the beta-scaled margin is {shown:.1f}, at which a pair weighs {math.exp(-max(shown, 0)):.0e}."
    remedy = (
        "Train again with fewer optim.steps, or with preference.loss: ipo, which gives margins a target. A loss near "
        "0 and an accuracy of 1 are not success."
    )
    easy = held_out is not None and held_out[1] >= threshold("saturation/easy")
    severity = "note" if easy else "fatal" if hit.severity == "fatal" and far else "warning"
    evidence = hit.evidence("gradient_weight/active" if known else "rewards/margins")
    return Finding("saturation", severity, hit.step, message, remedy, evidence, "rule D05; F56")


def _far_margin(margin: Point | None) -> Hit | None:
    """The same judged by the mean margin, for logs that do not have the weights."""
    if margin is None or margin[1] <= threshold("saturation/margin-warning"):
        return None
    far = margin[1] > threshold("saturation/margin-fatal")
    return Hit(*margin, "fatal" if far else "warning", threshold("saturation/margin-warning"))


def distance_per_token(log: RunLog) -> Point | None:
    """Size of the median raw margin per token."""
    found = middle(log, "margin/raw_per_token")
    return None if found is None else (found[0], abs(found[1]))


PER_TOKEN = Limit("margin-per-token", distance_per_token)


def of_rejected_alone(log: RunLog) -> bool:
    """Is a margin made by rejected responses that fell, while the chosen ones stayed where they were?"""
    margin, chosen = middle(log, "rewards/margins"), middle(log, "rewards/chosen")
    per_token = middle(log, "margin/raw_per_token")
    if margin is None or chosen is None or per_token is None or margin[1] <= 0 or per_token[1] <= 0:
        return False
    return abs(chosen[1]) / margin[1] * per_token[1] <= threshold("margin-per-token/chosen")


def margin_per_token(log: RunLog) -> Finding | None:
    """D07: the margin per token is further than a healthy run goes; a note where rejected responses alone moved."""
    hit, found = PER_TOKEN.exceeded(log), middle(log, "margin/raw_per_token")
    if hit is None or found is None:
        return None
    evidence = {"margin/raw_per_token": found[1], "bound": hit.bound}
    if of_rejected_alone(log):
        message = f"The raw margin is {found[1]:.2f} nats per token; the chosen responses moved by little of that."
        remedy = "Easy pairs do it: see whether a rule could tell the sides apart (trueup data audit)."
        return Finding("margin-per-token", "note", hit.step, message, remedy, evidence, "rule D07")
    message = f"The raw margin is {found[1]:.2f} nats per token: the policy is very far from its reference."
    remedy = (
        "See 'reference on the wanted responses' in trueup preflight (healthy: 0.1 to 0.5 of a uniform model's); if "
        "that is in order, lower optim.learning_rate."
    )
    return Finding("margin-per-token", hit.severity, hit.step, message, remedy, evidence, "rule D07")


def identical_share(log: RunLog) -> Point | None:
    """Share of all pairs so far whose sampled rejected response equals the chosen one."""
    seen, steps = log.series.get("pairs/identical", ()), max(measured(log, "loss"), measured(log, "pairs/identical"))
    return (seen[0][0], sum(values(seen)) / steps) if seen else None


IDENTICAL = Limit("identical-samples", identical_share)


def identical_samples(log: RunLog) -> Finding | None:
    """D01, live: sampled rejected responses equal the chosen ones."""
    hit, steps = IDENTICAL.exceeded(log), measured(log, "pairs/identical")
    if hit is None:
        return None
    message = (
        f"{hit.value:.1%} of the pairs so far, in {steps} steps, have a sampled rejected response that is token for "
        "token the chosen one: those pairs teach nothing."
    )
    remedy = "The reference reproduces its training answers: sample at a higher temperature, or use other prompts."
    evidence = hit.evidence("share", steps=steps)
    return Finding("identical-samples", hit.severity, hit.step, message, remedy, evidence, "rule D01; F10")


def tie_share(log: RunLog) -> Point | None:
    """Mean share of pairs whose margin is exactly 0, after the first update; not where it is all or none of them."""
    recent = [point for point in last(log, "rewards/ties", WINDOW) if point[0] > 1]
    tied = [step for step, value in recent if value > 0]
    if len(recent) < WINDOW or len(tied) < 3 or log.settings.get("preference.sync_every"):
        return None
    share = fmean(values(recent))
    return (tied[0], share) if share < 1 else None


TIES = Limit("tied-pairs", tie_share)


def tied_pairs(log: RunLog) -> Finding | None:
    """D01, F10: some pairs keep a margin of exactly 0 while the others move."""
    hit = TIES.exceeded(log)
    if hit is None:
        return None
    message = f"{hit.value:.1%} of the pairs have a margin of exactly 0 after updates: their two sides are the same."
    remedy = "Compare the final token ids of both sides; truncation may have cut off what differed."
    return Finding("tied-pairs", hit.severity, hit.step, message, remedy, hit.evidence("rewards/ties"), "D01; F10")


def held_out_excess(log: RunLog) -> Point | None:
    """Held-out loss above log 2, where held-out pairs are ranked right all the same."""
    loss, accuracy = latest(log, "eval/loss"), latest(log, "eval/rewards/accuracies")
    if loss is None or accuracy is None or loss[0] != accuracy[0] or not is_logistic(log):
        return None
    return (loss[0], loss[1] - LOG_2) if accuracy[1] >= threshold("overconfident/accuracy") else None


EXCESS = Limit("overconfident", held_out_excess)


def overconfident(log: RunLog) -> Finding | None:
    """D06: ranks right, and is sure where it is wrong."""
    hit, accuracy = EXCESS.exceeded(log), latest(log, "eval/rewards/accuracies")
    if hit is None or accuracy is None:
        return None
    loss = hit.value + LOG_2
    message = f"The held-out loss is {loss:.3f}, no better than not deciding, at an accuracy of {accuracy[1]:.2f}."
    remedy = "Ranking is fine, confidence is not: train again with fewer optim.steps or a lower optim.learning_rate."
    evidence = {"eval/loss": loss, "eval/rewards/accuracies": accuracy[1]}
    return Finding("overconfident", hit.severity, hit.step, message, remedy, evidence, "rule D06")


def chosen_fall(log: RunLog) -> Point | None:
    """How far chosen responses fell against where they began, if entropy on the texts rose with it (else 0)."""
    beta, now, began = beta_of(log), middle(log, "entropy"), first(log, "entropy")
    rows = together(log, "rewards/chosen", "logps/chosen")
    if beta is None or now is None or not began or len(rows) < WINDOW:
        return None
    fall = median(-reward / beta / max(abs(logps - reward / beta), 1.0) for _, reward, logps in rows)
    spread = now[1] > threshold("displacement/entropy") * fmean(values(began))
    return rows[0][0], fall if spread else 0.0


FALL = Limit("displacement", chosen_fall)


def displacement(log: RunLog) -> Finding | None:
    """D09, F59: chosen responses lose mass to third ones. Falling chosen rewards alone are healthy (D10)."""
    hit, entropy = FALL.exceeded(log), middle(log, "entropy")
    if hit is None or entropy is None:
        return None
    message = (
        f"The log-probability of chosen responses is {1 + hit.value:.1f} times as negative as at the start, and "
        f"entropy rose to {entropy[1]:.2f} nats a token: probability goes to responses that are neither of the two."
    )
    remedy = "Read samples. Train again with preference.loss: rpo, and leave out pairs whose sides are nearly equal."
    evidence = hit.evidence("fall", entropy=entropy[1])
    return Finding("displacement", hit.severity, hit.step, message, remedy, evidence, "rule D09; F59")


RULES = (
    Rule("saturation", "objective", DPO, any_of("gradient_weight/active", "rewards/margins"), saturation),
    Rule("margin-per-token", "reference", DPO, all_of("margin/raw_per_token"), margin_per_token),
    Rule("identical-samples", "data", DPO, all_of("pairs/identical"), identical_samples),
    Rule("tied-pairs", "data", DPO, all_of("rewards/ties"), tied_pairs),
    Rule("overconfident", "optimisation", DPO, all_of("eval/loss", "eval/rewards/accuracies"), overconfident),
    Rule("displacement", "objective", DPO, all_of("rewards/chosen", "logps/chosen", "entropy"), displacement),
)
LIMITS = (ACTIVE, PER_TOKEN, IDENTICAL, TIES, EXCESS, FALL)
