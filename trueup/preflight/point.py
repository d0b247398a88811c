"""KTO's reference point: what the run takes for the KL, against the mean over responses to other prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trueup.data.trees import Tree
from trueup.health.findings import Finding
from trueup.models.forward import token_scores
from trueup.preflight.modes import mode, moved
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.slope import NOTHING, Slope
from trueup.preflight.stride import stride
from trueup.preflight.subject import Sample, Subject
from trueup.train.objectives.unpaired import UnpairedObjective
from trueup.train.unpaired import UnpairedSource

CHECK = "reference point"
ROWS = 4
TIMES = 10.0
"""Tiny steps that the policy is moved by, at once: the point is then far above rounding."""
TOLERANCE = 0.02
"""Relative difference that rounding and other batches explain."""
REFERENCE = "F63, F64 of the catalogue of silent failures; Ethayarajh et al. 2024, arXiv 2402.01306"


def check_point(subject: Subject, sample: Sample) -> Outcome | None:
    """Move the policy towards foreign responses, ask the run for its point, and put the policy back.

    At the start policy and reference agree, every estimate of their distance is 0, and a wrong one looks right.
    """
    source, objective = subject.source, subject.objective
    if not isinstance(source, UnpairedSource) or not isinstance(objective, UnpairedObjective):
        return None
    if objective.loss.running_mean:
        return None
    if subject.half or not subject.same_model:
        return skipped(CHECK, "half precision" if subject.half else "the reference is not the policy as it starts")
    rows, foreign = _foreign(subject)
    if not rows:
        return skipped(CHECK, "no row of which it is sure which response to another prompt it gets")
    found = _measure(subject, source, rows, foreign)
    if found is None:
        return skipped(CHECK, "the responses to other prompts have no gradient to follow")
    given, expected = found
    told = f"{given:.4g} nats over {len(rows)} rows; by responses to other prompts {expected:.4g}"
    right = abs(given - expected) <= TOLERANCE * expected
    return made(CHECK, told, [] if right else [_wrong(given, expected)])


def _foreign(subject: Subject) -> tuple[list[int], list[Tree]]:
    """A few of the rows that are drawn, and their prompts with the response of the next row that has another prompt.

    What fits behind a prompt is the run's own limit. A row is taken where the answer cannot depend on it: the sum is
    no longer than a row that was kept.
    """
    trees = subject.source.trees
    known = int(subject.data.trees.sizes.max())
    rows, foreign = [], []
    for row in subject.rows:
        prompt = trees[row].prompt
        others = (trees[other] for other in (*range(row + 1, len(trees)), *range(row)))
        partner = next((tree for tree in others if tree.prompt != prompt), None)
        if partner is not None and len(prompt) + len(partner.responses[0]) <= known:
            rows.append(row)
            foreign.append(Tree(prompt, partner.responses))
        if len(rows) == ROWS:
            break
    return rows, foreign


def _measure(
    subject: Subject, source: UnpairedSource, rows: Sequence[int], foreign: Sequence[Tree]
) -> tuple[float, float] | None:
    """The point that the run gives and the one it should give, of a policy that has learned the foreign responses."""
    leaves, batch = subject.leaves, subject.batching.collate(foreign)
    with mode(subject.trained, False):
        before = token_scores(subject.policy, batch).logps
        loss = -before.sum() / len(rows)
        slope = Slope(float(loss.detach()), torch.autograd.grad(loss, leaves, allow_unused=True))
        if not slope.norm > NOTHING:
            return None
        with moved(leaves, slope.gradients, TIMES * stride(leaves, slope)), torch.no_grad():
            after = token_scores(subject.policy, batch).logps
            given = source.point(subject.trained, rows)
    expected = float((after.double() - before.detach().double()).sum()) / len(rows)
    return (given, expected) if expected > NOTHING else None


def _wrong(given: float, expected: float) -> Finding:
    message = (
        f"The reference point of a policy that has moved is {given:.4g} nats, and by responses to other prompts, over "
        f"all rows of a step, it is {expected:.4g}."
    )
    remedy = "Every response is measured from this point: look at which prompts and responses it is taken over."
    evidence = {"point": given, "expected_point": expected}
    return Finding("reference-point", "fatal", 0, message, remedy, evidence, REFERENCE)
