"""What a rehearsed rollout says: sampler and trainer agree, nothing is clipped, credit is centred, rewards differ."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trueup.health.findings import Finding
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Rehearsal, Sample, Subject
from trueup.train.experience import SPREAD
from trueup.train.objectives.grpo import GrpoObjective

AGREEMENT, RATIO, ADVANTAGES, REWARDS = "sampler and trainer", "ratio and clipping", "advantages", "rewards"
MEAN_GAP, MEAN_GAP_HALF = 0.01, 0.1
"""Mean difference in nats a token from which on updates are off-policy by themselves; in half precision, rule K02's."""
CLIPPED = 0.001
"""Share of tokens that rounding may clip before any update; F32 of the catalogue."""
CUT = 0.5
"""Share of responses cut off above which they are what training is about; F111 of the catalogue."""
ENOUGH, PLENTY = 8, 16
"""Responses below which nothing is said of all of them, and from which on it is more than a note."""
REFERENCE = "probe P11 of the catalogue of silent failures"


def check_agreement(subject: Subject, sample: Sample) -> Outcome | None:
    """The log-probabilities that tokens were drawn with, as training scores them, and as the reference does."""
    rehearsal = sample.rehearsal
    if rehearsal is None:
        return None
    if not rehearsal.lived.trees:
        return skipped(AGREEMENT, "all rehearsed groups are paid the same and were left out")
    drawn = rehearsal.lived.old_logps
    gaps = {"trainer": (rehearsal.scored - drawn).abs()}
    if subject.same_model:
        gaps["reference"] = (rehearsal.lived.ref_logps - drawn).abs()
    told = ", ".join(f"{name} to {float(gap.max()):.0e}" for name, gap in gaps.items())
    limit = MEAN_GAP_HALF if subject.half else MEAN_GAP
    findings = [_gap(name, gap, limit) for name, gap in gaps.items() if not float(gap.max()) <= subject.tolerance]
    return made(AGREEMENT, f"{len(drawn)} sampled tokens: {told} nats", findings)


def check_ratio(subject: Subject, sample: Sample) -> Outcome | None:
    """Over all steps that would use the rollout, without an update: ratio 1, nothing clipped."""
    rehearsal = sample.rehearsal
    if rehearsal is None or not any("policy/ratio" in metrics for metrics in rehearsal.passes):
        return None
    ratio = max(abs(metrics["policy/ratio"] - 1) for metrics in rehearsal.passes)
    clipped = max(metrics["clip_ratio/region_mean"] for metrics in rehearsal.passes)
    told = f"{len(rehearsal.passes)} steps without an update: ratio 1 to {ratio:.0e}, {clipped:.1%} clipped"
    if ratio <= max(subject.tolerance, 1e-4) and clipped <= CLIPPED:
        return made(RATIO, told)
    message = (
        f"Before any update the ratio should be 1 and nothing clipped: it is off by {ratio:.3g}, {clipped:.1%} clipped."
    )
    remedy = "Old and new log-probabilities are computed differently: temperature, dropout, padding, dtype or mask."
    evidence = {"ratio_error": ratio, "clipped": clipped}
    severity = "warning" if subject.half else "fatal"
    return made(RATIO, told, [Finding("rehearsal-ratio", severity, 0, message, remedy, evidence, f"{REFERENCE}; F87")])


def check_advantages(subject: Subject, sample: Sample) -> Outcome | None:
    """Finite, and summing to 0 over each group where a group is what a response is compared with."""
    rehearsal = sample.rehearsal
    values = None if rehearsal is None else rehearsal.lesson.tensors.get("advantages")
    if rehearsal is None or values is None or not len(values):
        return None
    if not bool(values.isfinite().all()):
        message = f"{int((~values.isfinite()).sum())} of {len(values)} advantages are not finite."
        remedy = "Look for a reward that is not a number, or a group of one."
        return made(ADVANTAGES, "not finite", [_advantage(message, remedy, {"tokens": len(values)})])
    variant = subject.objective.variant if isinstance(subject.objective, GrpoObjective) else None
    whole = len(values) == len(rehearsal.lived.branch)
    if variant is None or variant.baseline == "none" or variant.scale_rewards == "whiten" or not whole:
        return made(ADVANTAGES, f"{len(values)} tokens, all finite; no group to sum over")
    sums, size = _group_sums(rehearsal, values)
    told = f"{len(sums)} groups sum to 0 within {float(sums.abs().max()):.0e} (largest advantage {size:.2g})"
    if float(sums.abs().max()) <= 1e-3 * max(size, 1.0):
        return made(ADVANTAGES, told)
    message = f"Advantages of a group should sum to 0 and sum to {float(sums.abs().max()):.3g}."
    remedy = "Responses are compared with others than those of their own prompt: look at how groups are numbered."
    return made(ADVANTAGES, told, [_advantage(message, remedy, {"largest_sum": float(sums.abs().max())})])


def check_rewards(subject: Subject, sample: Sample) -> Outcome | None:
    """Finite, not all the same, and of responses that mostly end by themselves."""
    rehearsal = sample.rehearsal
    if rehearsal is None:
        return None
    metrics = rehearsal.metrics
    mean, spread, cut = metrics["reward"], metrics["reward_std"], metrics["completions/clipped_ratio"]
    same = metrics["frac_reward_zero_std"]
    told = f"mean {mean:.3g}, deviation {spread:.2g}; {same:.0%} of groups without a difference; {cut:.0%} cut off"
    number = sum(len(tree.responses) for tree in rehearsal.lived.trees)
    findings = _judge_rewards(metrics, number)
    if cut > CUT and number >= ENOUGH and not rehearsal.shortened:
        findings.append(_cut(cut))
    return made(REWARDS, told, findings)


def _judge_rewards(metrics: Mapping[str, float], number: int) -> list[Finding]:
    mean, spread = metrics["reward"], metrics["reward_std"]
    evidence = {name: metrics[name] for name in ("reward", "reward_std", "frac_reward_zero_std")}
    if not abs(mean) < float("inf"):
        message, remedy = f"The reward of a rehearsed response is not finite (mean {mean}).", "Repair the reward."
        return [Finding("reward-not-finite", "fatal", 0, message, remedy, evidence, "F114 of the catalogue")]
    if spread <= SPREAD and number >= ENOUGH:
        message = f"All {number} rehearsed responses are paid {mean:.4g}: a constant reward teaches nothing."
        severity = "warning" if number >= PLENTY else "note"
        remedy = "If it stays so: harder or easier prompts, a higher temperature, a finer reward, larger groups."
        return [Finding("reward-constant", severity, 0, message, remedy, evidence, "F95 of the catalogue; rule G02")]
    return []


def _cut(share: float) -> Finding:
    message = f"{share:.0%} of the rehearsed responses were cut off at the cap."
    remedy = "Raise rollout.decoding.max_new_tokens, or start from a model that has learnt to stop."
    return Finding("rollouts-cut", "warning", 0, message, remedy, {"share": share}, "F111 of the catalogue; rule K05")


def _gap(name: str, gap: torch.Tensor, limit: float) -> Finding:
    mean, most = float(gap.mean()), float(gap.max())
    severity = "warning" if mean <= limit else "fatal"
    evidence = {"mean": mean, "max": most, "limit": limit}
    if name == "reference":
        message = (
            f"The reference is the policy as it starts, and yet gives sampled tokens {mean:.3g} nats more or less on "
            f"average (at most {most:.3g}): the KL divergence does not start at 0."
        )
        remedy = "Score both at the sampling temperature, in evaluation mode, in one dtype."
        return Finding("rehearsal-kl", severity, 0, message, remedy, evidence, f"{REFERENCE}; rule K01")
    message = (
        f"Sampled tokens have other log-probabilities in training than they were drawn with: {mean:.3g} nats on "
        f"average, at most {most:.3g}."
    )
    remedy = "Compare cached and uncached logits, temperature, top-k and top-p, dropout, dtype."
    return Finding("rehearsal-mismatch", severity, 0, message, remedy, evidence, f"{REFERENCE}; F104, rule K02")


def _advantage(message: str, remedy: str, evidence: Mapping[str, float]) -> Finding:
    return Finding("ungrouped-advantage", "fatal", 0, message, remedy, evidence, "rule G03; F99, F114 of the catalogue")


def _group_sums(rehearsal: Rehearsal, values: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Sum over the responses of each group of a response's mean advantage, and the largest of these."""
    lived = rehearsal.lived
    lengths = torch.bincount(lived.branch, minlength=len(lived.rewards)).clamp(min=1)
    each = torch.zeros(len(lived.rewards)).index_add(0, lived.branch, values.float()) / lengths
    sums = torch.zeros(len(lived.trees)).index_add(0, lived.group, each)
    return sums, float(each.abs().max())
