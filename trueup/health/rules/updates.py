"""Updates from rollouts: the ratio of new to old policy, and the critic."""

from __future__ import annotations

from trueup.health.findings import Finding, Severity
from trueup.health.limit import Limit
from trueup.health.rule import ONLINE, Rule, RunLog, all_of
from trueup.health.signals import Point, last, measured, middle, values
from trueup.health.thresholds import WINDOW, threshold

MOVED, CLIPPED = "policy/approxkl", "clip_ratio/region_mean"
EXPLAINED = "val/explained_variance"

LEAST, MOST = 20, 50
"""Rollouts from which on a critic is judged, which at first explains 0, give or take; the most it is judged over."""


def largest_move(log: RunLog) -> Point | None:
    """P01: twice the largest approximate KL of the last updates, which is the variance of their ratios if small.

    Not judged where every update has a rollout of its own, whose ratio is 1 by right, nor where no gradient flows.
    """
    recent, norms = last(log, MOVED, WINDOW), values(last(log, "grad_norm", WINDOW))
    reused = measured(log, MOVED) > 1.5 * max(measured(log, "reward"), 1)
    if not recent or not reused or (norms and max(norms) == 0):
        return None
    return recent[0][0], 2 * max(values(recent))


MOVE = Limit("ratio-degenerate", largest_move, below=True)


def ratio_degenerate(log: RunLog) -> Finding | None:
    """P01, F88: the ratio is 1 in all updates of a rollout."""
    hit = MOVE.exceeded(log)
    if hit is None:
        return None
    message = f"Rollouts serve several updates, yet the ratio of new to old policy is 1 in all of the last {WINDOW}."
    remedy = "Old log-probabilities are computed again with the new weights, or the update is void: clipping is inert."
    return Finding("ratio-degenerate", hit.severity, hit.step, message, remedy, hit.evidence("variance"), "P01; F88")


def typical_move(log: RunLog) -> Point | None:
    """P02: median approximate KL of the last updates from the policy that sampled."""
    return middle(log, MOVED)


BLOW_UP = Limit("ratio-blow-up", typical_move)


def ratio_blow_up(log: RunLog) -> Finding | None:
    """P02: updates go too far from the policy that sampled; by KL, by what is clipped, or by the mean ratio."""
    hit, seen = BLOW_UP.exceeded(log), {name: middle(log, name) for name in (MOVED, CLIPPED, "policy/ratio")}
    evidence = {name: point[1] for name, point in seen.items() if point is not None}
    clipped = evidence.get(CLIPPED, 0.0) > threshold("ratio-blow-up/clipped") and not _clips_by_design(log)
    wild = not 0.1 <= evidence.get("policy/ratio", 1.0) <= 10
    if not (hit or clipped or wild):
        return None
    severity: Severity = "fatal" if wild or (hit is not None and hit.severity == "fatal") else "warning"
    told = ", ".join(f"{name} {value:.3g}" for name, value in evidence.items())
    message = f"An update moves the policy too far from the one that sampled: {told} (medians of {WINDOW} steps)."
    remedy = "Lower the learning rate or rollout.epochs; check that both policies score at the same temperature."
    step = min(point[0] for point in seen.values() if point is not None)
    return Finding("ratio-blow-up", severity, step, message, remedy, evidence, "rule P02")


def _clips_by_design(log: RunLog) -> bool:
    """GSPO's bounds are so near 1 that much is clipped."""
    return log.settings.get("grpo.variant") == "gspo"


def explained(log: RunLog) -> Point | None:
    """P03: median explained variance of the second half of the rollouts, once there are enough for one."""
    count = min(measured(log, EXPLAINED) // 2, MOST)
    return middle(log, EXPLAINED, count) if measured(log, EXPLAINED) >= LEAST else None


EXPLAINS = Limit("critic-useless", explained, below=True)


def _as_good_as_none(log: RunLog) -> str:
    """What is wrong with a critic that is not far below 0: it says the same of every token, or is below 0 for long."""
    found = explained(log)
    recent = values(last(log, EXPLAINED, LEAST // 2))
    if found is not None and recent and max(map(abs, recent)) < threshold("critic-useless/constant"):
        return f"explained exactly none of the variance of the returns in {len(recent)} rollouts: it is a constant"
    if found is not None and measured(log, EXPLAINED) >= 2 * MOST and found[1] < threshold("critic-useless/long"):
        return (
            f"explains {found[1]:.2f} of the variance of the returns over {MOST} rollouts: a constant would do better"
        )
    return ""


def critic_useless(log: RunLog) -> Finding | None:
    """P03, F89: the critic adds to the variance of advantages, or is a constant."""
    hit, found, told = EXPLAINS.exceeded(log), explained(log), _as_good_as_none(log)
    if found is None or not (hit or told):
        return None
    told = told or f"explains {found[1]:.2f} of the variance of the returns: it adds as much to that of the advantages"
    remedy = "Raise ppo.vf_coef or rollout.epochs; check the scale of the rewards, and that the value head is trained."
    evidence = {EXPLAINED: found[1], "bound": threshold("critic-useless/warning")}
    return Finding("critic-useless", "warning", found[0], f"The critic {told}.", remedy, evidence, "P03; F89")


RULES = (
    Rule("ratio-degenerate", "policy update", ONLINE, all_of(MOVED, "reward"), ratio_degenerate),
    Rule("ratio-blow-up", "policy update", ONLINE, (frozenset({MOVED}), frozenset({CLIPPED})), ratio_blow_up),
    Rule("critic-useless", "policy update", frozenset({"ppo"}), all_of(EXPLAINED), critic_useless),
)
LIMITS = (MOVE, BLOW_UP, EXPLAINS)
