"""Credit computed again, token by token in float64, from made rewards: what it should be is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev, stdev
from typing import Any

import torch
from torch import nn

from trueup.health.findings import Finding
from trueup.losses.variants import Variant
from trueup.models.actor_critic import ActorCritic
from trueup.preflight.encore import noise_of
from trueup.preflight.modes import moved
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Sample, Subject
from trueup.train.experience import Experience
from trueup.train.kl_control import KlControl
from trueup.train.lessons import Lesson
from trueup.train.objectives.grpo import GrpoObjective
from trueup.train.objectives.ppo import PpoCredit

CHECK = "credit"
TOLERANCE = 2e-3
"""Share of the largest number that float32 and sums in another order explain."""
REFERENCE = "rule G03; F81, F83, F86, F94, F99, F101 of the catalogue of silent failures"

Episodes = Sequence[Sequence[float]]
"""One number a token, response by response."""


@dataclass(frozen=True)
class _Made:
    """A rollout whose rewards and penalties are made: K responses; log π - log π_ref by token."""

    rewards: Sequence[float]
    group: Sequence[int]
    log_ratios: Episodes


def check_credit(subject: Subject, sample: Sample) -> Outcome | None:
    """Give the method a rehearsed rollout with made rewards and compare what it makes of it with its definition."""
    rehearsal = sample.rehearsal
    if rehearsal is None:
        return None
    if not rehearsal.lived.trees:
        return skipped(CHECK, "all rehearsed groups are paid the same and were left out")
    lived = _with_made_rewards(rehearsal.lived)
    head = _value_head(subject)
    with moved(head, noise_of(head), 1.0):  # a critic begins at 0, and shows nothing there
        lesson = subject.source.use.prepare(subject.trained, lived)
    if "advantages" not in lesson.tensors:
        return _pairs(lived, lesson)
    credit, told_to = subject.source.use.credit, _split(lived)
    if isinstance(subject.objective, GrpoObjective):
        gap = _gap(lesson.tensors["advantages"], grpo_credit(subject.objective.variant, told_to))
        wrong = {"advantages": gap}
    elif isinstance(credit, PpoCredit):
        values = _episodes(lesson.tensors["old_values"], lived)
        advantages, returns = ppo_credit(credit, told_to, values)
        wrong = {
            name: _gap(lesson.tensors[name], own) for name, own in (("advantages", advantages), ("returns", returns))
        }
    else:
        return skipped(CHECK, "how this method assigns credit is not known")
    told = ", ".join(f"{name} to {gap:.0e}" for name, gap in wrong.items())
    findings = [_wrong(name, gap) for name, gap in wrong.items() if not gap <= TOLERANCE][:1]
    findings += _blind(lesson.tensors.get("old_values")) + _paid_to_leave(credit, subject.objective)
    return made(CHECK, f"{len(lived.branch)} tokens with made rewards: {told}", findings)


def grpo_credit(variant: Variant, lived: _Made) -> list[float]:
    """Advantage of every token by the baseline and the scale of a variant."""
    taken = [[variant.kl_in_reward * ratio for ratio in ratios] for ratios in lived.log_ratios]
    totals = [reward - sum(penalty) for reward, penalty in zip(lived.rewards, taken, strict=True)]
    groups = [[total for total, g in zip(totals, lived.group, strict=True) if g == own] for own in lived.group]
    credit = []
    for number, penalty in enumerate(taken):
        group, total = groups[number], totals[number]
        others = (sum(group) - total) / (len(group) - 1) if len(group) > 1 else total
        less = {"group": fmean(group), "leave_one_out": others}.get(variant.baseline)
        for token in range(len(penalty)):
            to_go = lived.rewards[number] - sum(penalty[token:])
            credit.append(to_go if less is None else total - less)
    spreads = [_spread(group) for group, penalty in zip(groups, taken, strict=True) for _ in penalty]
    return _scaled(variant.scale_rewards, credit, spreads, _spread(totals))


def _scaled(how: str, credit: list[float], spreads: Sequence[float], spread: float) -> list[float]:
    if how == "whiten":
        return _whitened(credit)
    divisors = {"group": [own + 1e-4 for own in spreads], "batch": [spread + 1e-4] * len(credit)}
    return [value / by for value, by in zip(credit, divisors.get(how, [1.0] * len(credit)), strict=True)]


def ppo_credit(credit: PpoCredit, lived: _Made, values: Episodes) -> tuple[list[float], list[float]]:
    """Advantages and returns of every token: rewards at the last one, KL penalty at each, GAE backwards, whitening."""
    coefficient = credit.kl_coef.value if credit.kl_in_reward else 0.0
    paid = [[-coefficient * ratio for ratio in ratios] for ratios in lived.log_ratios]
    for tokens, reward in zip(paid, lived.rewards, strict=True):
        tokens[-1] += reward
    if credit.whiten_rewards:
        mean = fmean(_flat(paid))
        deviation = pstdev(_flat(paid)) + 1e-8
        paid = [[(value - mean) / deviation + mean for value in tokens] for tokens in paid]
    advantages: list[float] = []
    returns: list[float] = []
    for tokens, states in zip(paid, values, strict=True):
        own = _backwards(tokens, states, credit.gamma, credit.lam)
        advantages += own
        returns += [advantage + value for advantage, value in zip(own, states, strict=True)]
    return _whitened(advantages) if credit.whiten_advantages else advantages, returns


def _backwards(paid: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> list[float]:
    """GAE of one response, from its last token to its first; nothing follows the last."""
    out: list[float] = []
    following = later = 0.0
    for reward, value in zip(reversed(paid), reversed(values), strict=True):
        later = reward + gamma * following - value + gamma * lam * later
        following = value
        out.append(later)
    return out[::-1]


def _value_head(subject: Subject) -> list[nn.Parameter]:
    """What makes values of hidden states; empty where there is no critic."""
    return list(subject.trained.value_head.parameters()) if isinstance(subject.trained, ActorCritic) else []


def _pairs(lived: Experience, lesson: Lesson) -> Outcome:
    """Of each group the response that is paid most, then the one that is paid least, and nothing else."""
    rewards = iter(lived.rewards.tolist())
    expected = []
    for tree in lived.trees:
        paid = [next(rewards) for _ in tree.responses]
        order = sorted(range(len(paid)), key=paid.__getitem__)
        expected.append((tree.responses[order[-1]], tree.responses[order[0]]))
    wrong = sum(tree.responses != pair for tree, pair in zip(lesson.trees, expected, strict=True))
    told = f"{len(expected)} groups with made rewards: {len(expected) - wrong} give the best and the worst"
    return made(CHECK, told, [_wrong("pairs", float(wrong))] if wrong else [])


def _with_made_rewards(lived: Experience) -> Experience:
    """The same responses, all ended, paid numbers that differ, with a reference that differs."""
    rng = torch.Generator().manual_seed(0)
    rewards = torch.randn(len(lived.rewards), generator=rng)
    away = 0.3 * torch.randn(len(lived.branch), generator=rng)
    return replace(
        lived, rewards=rewards, scores=rewards, ref_logps=lived.old_logps - away, ended=torch.ones_like(lived.ended)
    )


def _split(lived: Experience) -> _Made:
    ratios = (lived.old_logps - lived.ref_logps).double()
    return _Made(lived.rewards.double().tolist(), lived.group.tolist(), _episodes(ratios, lived))


def _episodes(values: torch.Tensor, lived: Experience) -> Episodes:
    lengths = [len(response) for tree in lived.trees for response in tree.responses]
    return [part.tolist() for part in values.double().cpu().split(lengths)]


def _gap(found: torch.Tensor, expected: Sequence[float]) -> float:
    """Largest difference by the largest number; infinite where there are not as many numbers."""
    if len(found) != len(expected):
        return math.inf
    scale = max(map(abs, expected), default=0.0) or 1.0
    return float((found.double().cpu() - torch.tensor(expected, dtype=torch.float64)).abs().max()) / scale


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _whitened(values: Sequence[float]) -> list[float]:
    mean, deviation = fmean(values), pstdev(values) + 1e-8
    return [(value - mean) / deviation for value in values]


def _flat(episodes: Episodes) -> list[float]:
    return [value for tokens in episodes for value in tokens]


def _paid_to_leave(*owners: Any) -> list[Finding]:
    """A KL penalty below 0 is a reward, wherever it is taken off."""
    values = [owner.kl_coef.value for owner in owners if isinstance(getattr(owner, "kl_coef", None), KlControl)]
    if min(values, default=0.0) >= 0:
        return []
    message = f"The coefficient of the KL penalty is {min(values):g}: the policy is paid for leaving the reference."
    remedy = "A penalty has a coefficient above 0: look for a sign that is turned twice."
    return [Finding("credit-value", "fatal", 0, message, remedy, {"what": "kl_coef", "gap": min(values)}, "F85")]


def _blind(values: torch.Tensor | None) -> list[Finding]:
    """A critic with random weights has another value for every state, if it sees states at all."""
    if values is None or len(values) < 2 or float(values.max() - values.min()) > 0:
        return []
    message = f"With random weights the critic has one value, {float(values[0]):.3g}, for all {len(values)} states."
    remedy = "See whether hidden states reach the value head, and whether its weights are among those that are trained."
    evidence = {"tokens": len(values), "value": float(values[0])}
    return [Finding("critic-constant", "fatal", 0, message, remedy, evidence, "F89 of the catalogue")]


def _wrong(what: str, gap: float) -> Finding:
    if what == "pairs":
        message = f"{gap:.0f} groups with known rewards do not give their best and worst response as a pair."
    else:
        message = f"With known rewards {what} are off by {gap:.3g} of the largest, computed again by their definition."
    remedy = "Look at where a reward is paid, where an episode ends, what is subtracted, and what it is divided by."
    return Finding("credit-value", "fatal", 0, message, remedy, {"what": what, "gap": gap}, REFERENCE)
