"""The reward asked again: the same responses in another order must have the same scores, and a model's are its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trueup.data.trees import Tree, split_branches
from trueup.health.findings import Finding
from trueup.models.scoring import response_scores
from trueup.preflight.composition import GRAVE
from trueup.preflight.modes import mode
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Rehearsal, Sample, Subject
from trueup.rewards.learned import LearnedReward
from trueup.rewards.protocol import Completions, Reward
from trueup.train.objectives.reward import RewardObjective

AGAIN, DIRECT = "scores, asked again", "reward model, read directly"
LEFT_OUT = "all groups of the first rehearsed rollout are paid the same and were left out"
NOISE = 0.05
"""Share of the variance of scores that may differ between two times without more than a note."""
REFERENCE = "F75, F80, F117 of the catalogue of silent failures"


def check_again(subject: Subject, sample: Sample) -> Outcome | None:
    """Score the first rehearsed rollout in reversed order; in the training of a reward model, some rows twice."""
    rehearsal = sample.rehearsal
    if rehearsal is None:
        return _steady(subject, sample) if isinstance(subject.objective, RewardObjective) else None
    trees, first = first_scores(rehearsal)
    if not trees:
        return skipped(AGAIN, LEFT_OUT)
    again = ask_again(subject.source.reward, rehearsal, trees)
    return _compared(subject, first, again, isinstance(subject.source.reward, LearnedReward))


def _compared(subject: Subject, first: Tensor, again: Tensor, model: bool) -> Outcome:
    gap = _gap(subject, first, again)
    told = f"{len(first)} scores, given twice: equal to {gap:.0e}"
    return made(AGAIN, told, [] if gap <= subject.tolerance else [_unsteady(subject, first, again, model)])


def _gap(subject: Subject, one: Tensor, other: Tensor) -> float:
    """Mean difference in half precision, where the batch decides the rounding, else the largest."""
    gaps = _gaps(subject, one, other)
    return float(gaps.mean() if subject.half else gaps.max())


def _gaps(subject: Subject, one: Tensor, other: Tensor) -> Tensor:
    """In half precision small scores are small differences of large numbers, and noisy."""
    return relative_gaps(one, other, 1.0 if subject.half else 1e-2)


def first_scores(rehearsal: Rehearsal) -> tuple[list[Tree], Tensor]:
    """Trees of the first draw that are trained on, and the scores ``[K]`` of their responses."""
    drawn = {id(tree) for tree in rehearsal.asked[0].trees}
    parts = rehearsal.lived.scores.split([len(tree.responses) for tree in rehearsal.lived.trees])
    kept = [(tree, part) for tree, part in zip(rehearsal.lived.trees, parts, strict=True) if id(tree) in drawn]
    return [tree for tree, _ in kept], torch.cat([part for _, part in kept]) if kept else torch.zeros(0)


def ask_again(reward: Reward, rehearsal: Rehearsal, trees: Sequence[Tree]) -> Tensor:
    """Scores ``[K]`` of some trees of the first draw where all of it is scored from its end to its beginning."""
    asked = rehearsal.asked[0]
    scores = reward(backwards(asked)).total.detach().float().cpu().flip(0)
    parts = scores.split([len(tree.responses) for tree in asked.trees])
    found = {id(tree): part for tree, part in zip(asked.trees, parts, strict=True)}
    return torch.cat([found[id(tree)] for tree in trees])


def backwards(asked: Completions) -> Completions:
    """The same question with trees, and the responses of each, in reversed order."""
    trees = [Tree(tree.prompt, tree.responses[::-1]) for tree in reversed(asked.trees)]
    return replace(
        asked, trees=trees, rows=tuple(asked.rows)[::-1], ended=tuple(asked.ended)[::-1], records=asked.records[::-1]
    )


def relative_gaps(one: Tensor, other: Tensor, least: float) -> Tensor:
    """Differences ``[K]`` by the largest score, or by ``least``; where both are no numbers there is none."""
    scale = max(float(other.abs().nan_to_num(nan=0.0).max()), least)
    same = (one == other) | (one.isnan() & other.isnan())
    return torch.where(same, 0.0, (one - other).abs().nan_to_num(nan=torch.inf) / scale)


@torch.no_grad()
def check_direct(subject: Subject, sample: Sample) -> Outcome | None:
    """Ask a reward model itself about each response alone, the whole of it after the whole prompt."""
    rehearsal = sample.rehearsal
    if rehearsal is None or not isinstance(subject.source.reward, LearnedReward):
        return None
    trees, _ = first_scores(rehearsal)
    if not trees:
        return skipped(DIRECT, LEFT_OUT)
    reward = subject.source.reward
    alone = replace(reward.batching, layout="plain")
    parts = [part for tree in trees for part in split_branches(tree)]
    own = torch.cat([response_scores(reward.model, alone.collate([part])) for part in parts]).cpu()
    gap = _gap(subject, ask_again(reward, rehearsal, trees), own)
    told = f"{len(own)} responses alone: scores equal to {gap:.0e}"
    return made(DIRECT, told, [] if gap <= subject.tolerance else [_misread(gap, subject.tolerance)])


@torch.no_grad()
def _steady(subject: Subject, sample: Sample) -> Outcome:
    batch = subject.batching.collate([sample.trees[i] for i in sample.few])
    with mode(subject.trained, False):
        first, again = subject.observe(batch), subject.observe(batch)
    return _compared(subject, first, again, True)


def _unsteady(subject: Subject, first: Tensor, again: Tensor, model: bool) -> Finding:
    changed = int((_gaps(subject, first, again) > subject.tolerance).sum())
    noise = share_of_noise(first, again)
    grave = model and _gap(subject, first, again) > GRAVE * subject.tolerance
    severity = "fatal" if grave else "note" if noise <= NOISE and not model else "warning"
    message = (
        f"{changed} of {len(first)} responses have another score when they are scored again"
        f"{_which(first.tolist(), again.tolist())}; {noise:.0%} of the variance is not theirs."
    )
    remedy = (
        "A score must be a function of its prompt and response: look for order, state, time-outs and errors that "
        "become scores. If the reward is random by design, expect to need more responses."
    )
    evidence = {"changed": changed, "responses": len(first), "noise": noise}
    return Finding("reward-not-repeatable", severity, 0, message, remedy, evidence, REFERENCE)


def share_of_noise(first: Tensor, again: Tensor) -> float:
    """Mean square of the difference over the variances' sum: 0 for equal scores, 1 for independent ones and worse."""
    if len(first) < 2 or not bool((first - again).isfinite().all()):
        return 1.0
    return min(1.0, float((first - again).square().mean() / (first.var() + again.var()).clamp(min=1e-12)))


def _which(first: Sequence[float], again: Sequence[float]) -> str:
    return ": the same numbers, given to others" if sorted(first) == sorted(again) else ""


def _misread(gap: float, limit: float) -> Finding:
    message = f"Scores differ by {gap:.3g} of the largest from what the reward model says of prompt and response."
    severity = "fatal" if gap > GRAVE * limit else "warning"
    remedy = "See which tokens it is given (prompt, terminator, padding) and in which precision scores are kept."
    evidence = {"difference": gap, "limit": limit}
    return Finding(
        "reward-model-misread", severity, 0, message, remedy, evidence, "F71, F74, F79, F80 of the catalogue"
    )
