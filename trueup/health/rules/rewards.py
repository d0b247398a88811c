"""The reward of online training: its trend, its spread within groups, its parts, and what it pays for."""

from __future__ import annotations

import re
from statistics import correlation

from trueup.health.findings import Finding, Severity
from trueup.health.limit import Limit
from trueup.health.rule import ONLINE, Rule, RunLog, all_of
from trueup.health.signals import Point, change, last, middle, start, values
from trueup.health.thresholds import ROLLOUTS, START, threshold

DEAD = "frac_reward_zero_std"
LENGTH = "completions/mean_length"
PART = re.compile(r"rewards/(.+)/mean")

TREND = 30
"""Rollouts over which reward and length are compared."""


def reward_fall(log: RunLog) -> Point | None:
    """G01: fall of the mean reward since the first rollouts, in standard deviations of a response's score.

    0 where it may be chance, and where the policy stayed where it was.
    """
    trend, spread = change(log, "reward", ROLLOUTS), start(log, "reward_std")
    if trend is None or not spread:
        return None
    moved = middle(log, "kl/policy_reference_k3", ROLLOUTS)
    still = moved is not None and moved[1] < threshold("negative-kl/floor")
    fallen = trend[1] < -threshold("reward-falling/z") and not still
    return last(log, "reward", ROLLOUTS)[0][0], -trend[0] / spread if fallen else 0.0


FALLING = Limit("reward-falling", reward_fall)


def reward_falling(log: RunLog) -> Finding | None:
    """G01, F94: training lowers what it is meant to raise."""
    hit = FALLING.exceeded(log)
    if hit is None:
        return None
    message = f"The mean reward has fallen by {hit.value:.2f} standard deviations of a score since the first rollouts."
    remedy = "Check the sign of the loss and of every part of the reward; a KL penalty this strong would also do it."
    return Finding("reward-falling", hit.severity, hit.step, message, remedy, hit.evidence("fall"), "rule G01; F94")


def dead_share(log: RunLog) -> Point | None:
    """G02: median share of groups whose responses all score the same, of the last 3 rollouts."""
    return middle(log, DEAD, 3)


DEAD_SHARE = Limit("dead-groups", dead_share)


def is_learned(log: RunLog) -> bool:
    """Has the reward risen to where little is left to tell responses apart: by much, or until its spread is halved?"""
    trend, spread, now = change(log, "reward", ROLLOUTS), start(log, "reward_std"), middle(log, "reward_std", ROLLOUTS)
    if trend is None or not spread or trend[1] < threshold("dead-groups/z"):
        return False
    return trend[0] > spread or (now is not None and now[1] < threshold("dead-groups/spread") * spread)


def dead_groups(log: RunLog) -> Finding | None:
    """G02, F95: groups whose responses all score the same teach nothing; a note where the task is learned.

    Fatal if it lasts and nothing was learned.
    """
    hit = DEAD_SHARE.exceeded(log)
    if hit is None:
        return None
    same = f"In {hit.value:.0%} of the groups all responses score the same"
    if is_learned(log):
        message = f"{same}, for the reward has risen: most prompts are solved, and teach nothing any more."
        remedy = (
            "The task is done; or go on with harder prompts (rollout.resample_zero_spread finds those that are left)."
        )
        return Finding("dead-groups", "note", hit.step, message, remedy, hit.evidence(DEAD), "rule G02")
    lasting = DEAD_SHARE.judge(*(middle(log, DEAD, ROLLOUTS) or (0, 0.0)))
    severity: Severity = "fatal" if lasting and lasting.severity == "fatal" else "warning"
    message = f"{same}: they teach nothing."
    remedy = (
        "Raise the temperature or the group size, set rollout.resample_zero_spread to sample other prompts in their "
        "place, or drop prompts that are solved or hopeless. See whether the reward is too coarse."
    )
    return Finding("dead-groups", severity, hit.step, message, remedy, hit.evidence(DEAD), "rule G02; F95")


def length_correlation(log: RunLog) -> Point | None:
    """Correlation of reward and length over the last rollouts; 0 unless both went up by much."""
    rewards, lengths, trend = last(log, "reward", TREND), last(log, LENGTH, TREND), change(log, "reward", ROLLOUTS)
    began = start(log, LENGTH)
    if not rewards or not lengths or trend is None or not began:
        return None
    longer = values(lengths)[-1] > threshold("reward-follows-length/length") * began
    varies = len(set(values(rewards))) > 1 and len(set(values(lengths))) > 1
    both = longer and varies and trend[1] > threshold("reward-part-falls/z")
    return rewards[0][0], correlation(values(rewards), values(lengths)) if both else 0.0


FOLLOWS = Limit("reward-follows-length", length_correlation)


def reward_follows_length(log: RunLog) -> Finding | None:
    """F61, F76, F92: the reward rises as responses get longer."""
    hit = FOLLOWS.exceeded(log)
    if hit is None:
        return None
    message = f"Reward and length rise together: over {TREND} rollouts their correlation is {hit.value:.2f}."
    remedy = "Compare responses of equal length before you believe the reward; penalise length, or balance its data."
    return Finding("reward-follows-length", hit.severity, hit.step, message, remedy, hit.evidence("correlation"), "F61")


def parts_of(log: RunLog) -> list[str]:
    """Names of the reward's parts."""
    return [found[1] for name in log.series if (found := PART.fullmatch(name))]


def part_losses(log: RunLog) -> list[tuple[float, str]]:
    """Share of itself that each part lost while the sum rose, both beyond chance; the largest first."""
    total, z = change(log, "reward", ROLLOUTS), threshold("reward-part-falls/z")
    if total is None or total[1] <= z:
        return []
    lost = []
    for part in parts_of(log):
        name = f"rewards/{part}/mean"
        trend, began = change(log, name, ROLLOUTS), start(log, name)
        if trend is not None and began and trend[1] < -z:
            lost.append((-trend[0] / abs(began), part))
    return sorted(lost, reverse=True)


def part_loss(log: RunLog) -> Point | None:
    """The largest share that a part lost while the sum rose."""
    recent, lost = last(log, "reward", ROLLOUTS), part_losses(log)
    return (recent[0][0], lost[0][0] if lost else 0.0) if recent and parts_of(log) else None


PART_LOSS = Limit("reward-part-falls", part_loss)


def reward_part_falls(log: RunLog) -> Finding | None:
    """F116: the reward rises because one part is bought with another."""
    hit, lost = PART_LOSS.exceeded(log), part_losses(log)
    if hit is None or not lost:
        return None
    part = lost[0][1]
    message = f"The reward rises while its part '{part}' has lost {hit.value:.0%}: it is given up for the others."
    remedy = "If that part is the task, raise its weight, or pay the others only where it is met."
    evidence = hit.evidence("lost", part=part)
    return Finding("reward-part-falls", hit.severity, hit.step, message, remedy, evidence, "F116; F94")


def constant_parts(log: RunLog) -> list[str]:
    """Parts whose scores have not differed in any of the first and last rollouts."""
    found = []
    for part in parts_of(log):
        name = f"rewards/{part}/std"
        spreads = [*log.series.get(name, ())[:START], *last(log, name, 2 * ROLLOUTS)]
        if len(spreads) == START + 2 * ROLLOUTS and max(values(spreads)) < threshold("reward-part-constant/warning"):
            found.append(part)
    return found


def reward_part_constant(log: RunLog) -> Finding | None:
    """F95, F115: a part of the reward has given every response the same score since the run began."""
    parts = constant_parts(log)
    if not parts:
        return None
    named = ", ".join(f"'{part}'" for part in parts)
    means = {f"rewards/{part}/mean": values(last(log, f"rewards/{part}/mean", 1)) for part in parts}
    message = f"Every response has had the same score from {named}: nothing is learned from it."
    remedy = "See whether the rule can read the responses at all; a right answer and an empty one must differ."
    evidence = {name: value[0] for name, value in means.items() if value}
    # What a start has learned already, such as a format, is paid to every response.
    paid = bool(evidence) and min(evidence.values()) > 0
    return Finding("reward-part-constant", "note" if paid else "warning", 0, message, remedy, evidence, "F95, F115")


GROUPS = frozenset({"grpo", "rloo"})
RULES = (
    Rule("reward-falling", "objective", ONLINE, all_of("reward", "reward_std"), reward_falling),
    Rule("dead-groups", "reward", GROUPS, all_of(DEAD), dead_groups),
    Rule("reward-follows-length", "reward", ONLINE, all_of("reward", LENGTH), reward_follows_length),
    Rule("reward-part-falls", "reward", ONLINE, all_of("reward"), reward_part_falls),
    Rule("reward-part-constant", "reward", ONLINE, all_of("reward"), reward_part_constant),
)
LIMITS = (FALLING, DEAD_SHARE, FOLLOWS, PART_LOSS)
