"""What responses are paid: their own scores, less the penalties of the settings, by where they really end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trueup.data.trees import Tree
from trueup.health.findings import Finding
from trueup.preflight.outcome import Outcome, made
from trueup.preflight.subject import Encore, Sample, Subject
from trueup.train.experience import Experience
from trueup.train.rollout import RolloutPlan

CHECK = "what is paid"
TOLERANCE = 1e-5
"""Share of the largest reward that rounding in float32 explains."""
REFERENCE = "F82, F99, F115, F117 of the catalogue of silent failures"


def check_pay(subject: Subject, sample: Sample) -> Outcome | None:
    """Compute what is paid again from scores, ends and lengths; of a second rollout the scores are known, too."""
    rehearsal = sample.rehearsal
    if rehearsal is None:
        return None
    stops = subject.encoder.stops
    encore = rehearsal.encore
    lives = [(rehearsal.plan, rehearsal.lived), *([(encore.plan, encore.lived)] if encore else [])]
    findings = _misplaced(encore) if encore else []
    wrong = torch.cat([expected_rewards(plan, lived) - lived.rewards for plan, lived in lives])
    largest = max((float(lived.rewards.abs().max()) for _, lived in lives if len(lived.rewards)), default=1.0)
    cut = sum(not ends for _, lived in lives for ends in really_ended(lived.trees, stops))
    gap = _largest(wrong)
    told = f"{len(wrong)} responses, {cut} of them cut off: paid as the settings say to {gap:.0e}"
    if gap > TOLERANCE * max(largest, 1.0):
        findings.append(_otherwise(gap, len(wrong), cut))
    told_ends = torch.cat([lived.ended for _, lived in lives]).tolist()
    ends = [end for _, lived in lives for end in really_ended(lived.trees, stops)]
    if told_ends != ends:
        findings.append(_ends(told_ends, ends))
    return made(CHECK, told, findings)


def expected_rewards(plan: RolloutPlan, lived: Experience) -> Tensor:
    """Score of each response less the penalties that the plan names, ``[K]``."""
    lengths = [len(response) for tree in lived.trees for response in tree.responses]
    out = []
    for score, length, ended in zip(lived.scores.tolist(), lengths, lived.ended.tolist(), strict=True):
        penalty = 0.0 if ended else plan.missing_eos_penalty
        if plan.overlong_buffer is not None:
            over = length - (plan.decoding.max_new_tokens - plan.overlong_buffer)
            penalty += min(max(over / plan.overlong_buffer, 0.0), 1.0)
        out.append(score - penalty)
    return torch.tensor(out, dtype=lived.rewards.dtype)


def really_ended(trees: Sequence[Tree], stops: frozenset[int]) -> list[bool]:
    """Is the last token of each response a terminator?"""
    return [bool(response) and response[-1] in stops for tree in trees for response in tree.responses]


def _largest(gaps: Tensor) -> float:
    """The largest gap; of rewards that are no numbers, which are told elsewhere, nothing."""
    return float(gaps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().max()) if len(gaps) else 0.0


def _misplaced(encore: Encore) -> list[Finding]:
    wrong = int((encore.lived.scores != encore.known).sum())
    if not wrong:
        return []
    moved = bool((encore.lived.scores.sort().values == encore.known.sort().values).all())
    what = "the scores of other responses" if moved else "other scores than the reward gave"
    message = f"Paid by a reward that is known, {wrong} of {len(encore.known)} responses have {what}."
    remedy = "Look at what happens to scores between the reward and the update: order, defaults for failures, scale."
    evidence = {"responses": len(encore.known), "wrong": wrong, "of_another": moved}
    return [Finding("paid-otherwise", "fatal", 0, message, remedy, evidence, REFERENCE)]


def _otherwise(gap: float, number: int, cut: int) -> Finding:
    message = (
        f"Of {number} responses, {cut} of them cut off, some are paid {gap:.3g} more or less than their scores and the "
        "penalties of the settings make."
    )
    remedy = "See rollout.missing_eos_penalty and rollout.overlong_buffer, and whether rewards keep their responses."
    evidence = {"largest": gap, "responses": number, "cut": cut}
    return Finding("paid-otherwise", "fatal", 0, message, remedy, evidence, REFERENCE)


def _ends(told: Sequence[bool], ends: Sequence[bool]) -> Finding:
    wrong = sum(a != b for a, b in zip(told, ends, strict=True))
    message = f"{wrong} of {len(ends)} responses are said to have ended where the last token is no terminator, or not."
    remedy = "A response has ended if its last token is a terminator: whoever samples must say so."
    evidence = {"wrong": wrong, "responses": len(ends)}
    return Finding("ends-misjudged", "fatal", 0, message, remedy, evidence, "F08, F82 of the catalogue")
