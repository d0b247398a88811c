"""Every response alone and in company: neighbours, siblings and padding may not change what the model says of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trueup.data.trees import split_branches
from trueup.health.findings import Finding
from trueup.models.scoring import reads_both_ways
from trueup.preflight.modes import mode
from trueup.preflight.outcome import Outcome, made
from trueup.preflight.subject import Sample, Subject
from trueup.train.objectives.reward import RewardObjective

CHECK = "responses alone and in a batch"
GRAVE = 100
"""Times the tolerance from which on it is no longer the order in which numbers were added."""
REFERENCE = "probe P6 of the catalogue of silent failures; F21, F31, F32, F70"


@torch.no_grad()
def check_composition(subject: Subject, sample: Sample) -> Outcome:
    """Score a batch, and each of its responses alone in the plain layout."""
    trees = [sample.trees[i] for i in sample.few]
    alone = replace(subject.batching, layout="plain")
    with mode(subject.trained, False):
        together = subject.observe(subject.batching.collate(trees))
        apart = torch.cat([subject.observe(alone.collate([part])) for tree in trees for part in split_branches(tree)])
    gaps = (together - apart).abs() / _scale(subject, apart)
    gap = float(gaps.mean() if subject.half else gaps.max())
    unit = "a score" if isinstance(subject.objective, RewardObjective) else "a token"
    told = f"{subject.batching.layout} against alone: {'on average' if subject.half else 'at most'} {gap:.0e} {unit}"
    if gap <= subject.tolerance:
        return made(CHECK, told)
    message = f"What the model says of a response changes by {gap:.3g} with what else is in its batch."
    severity = "warning" if gap <= GRAVE * subject.tolerance else "fatal"
    remedy = (
        "Set model.layout: plain; if it persists, the model's padding or position ids depend on the batch"
        if subject.batching.layout != "plain"
        else "The model's padding, position ids or pooled token depend on the batch"
    ) + (" (an encoder pads its rows)." if _pads(subject) else ".")
    evidence = {"difference": gap, "layout": subject.batching.layout}
    return made(CHECK, told, [Finding("batch-dependent", severity, 0, message, remedy, evidence, REFERENCE)])


def _scale(subject: Subject, values: Tensor) -> Tensor | float:
    """Log-probabilities are compared in nats; scores have no unit, so large ones are compared by their size."""
    return values.abs().clamp(min=1.0) if isinstance(subject.objective, RewardObjective) else 1.0


def _pads(subject: Subject) -> bool:
    return isinstance(subject.objective, RewardObjective) and reads_both_ways(subject.trained)
