"""What is known of data and reference without a gradient: mask, pairs, labels, and policy = reference at step 0."""

from __future__ import annotations

import torch
from torch import Tensor

from trueup.losses.pairs import PairLoss
from trueup.preflight.identity import (
    identity_findings,
    laid_out_findings,
    measure_identity,
    read_back_findings,
    value_findings,
)
from trueup.preflight.labels import label_findings
from trueup.preflight.outcome import Outcome, made
from trueup.preflight.pairs import pair_findings
from trueup.preflight.subject import Sample, Subject
from trueup.train.objectives.preference import PreferenceObjective, pair_logps
from trueup.train.objectives.reward import RewardObjective
from trueup.train.objectives.unpaired import UnpairedObjective

MASK, PAIRS, LABELS, IDENTITY = "trained tokens read back", "pairs", "labels", "policy = reference at step 0"


def check_mask(subject: Subject, sample: Sample) -> Outcome | None:
    """The tokens under the mask, decoded, are the response and one terminator: every row, as it was encoded.

    Of the first rows also as they are laid out for the objective, where a mask that goes by token ids shows.
    """
    found = subject.data.read_back
    if sample.rehearsal is not None:
        return None
    told = f"{found.checked - found.wrong} of {found.checked} rows decode to their text and one terminator"
    laid = laid_out_findings(sample.trees, sample.batch(range(len(sample.trees))).trees, subject.encoder)
    return made(MASK, told, [*read_back_findings(found, subject.encoder), *laid])


def check_pairs(subject: Subject, sample: Sample) -> Outcome | None:
    """No identical pairs, no empty sides."""
    if sample.rehearsal is not None or not isinstance(subject.objective, PreferenceObjective | RewardObjective):
        return None
    return made(
        PAIRS,
        f"{len(subject.data)} pairs kept, looked through for identical and empty sides",
        pair_findings(subject.data),
    )


def check_labels(subject: Subject, sample: Sample) -> Outcome | None:
    """Both labels are there, and weigh about the same."""
    if not isinstance(subject.objective, UnpairedObjective):
        return None
    wanted, settings = int(subject.source.desirable.sum()), subject.objective.settings
    unwanted = len(subject.data) - wanted
    weights = settings.get("desirable_weight"), settings.get("undesirable_weight")
    return made(LABELS, f"{wanted} wanted, {unwanted} unwanted", label_findings(wanted, unwanted, *weights))


def check_identity(subject: Subject, sample: Sample) -> Outcome | None:
    """Policy and reference agree token by token and in the loss, as far as they are the same weights."""
    if not isinstance(subject.objective, PreferenceObjective | UnpairedObjective) or not sample.trees:
        return None
    batch, objective = sample.batch(range(len(sample.trees))), subject.objective
    if batch.ref_logps is None:
        return None

    def losses(logps: Tensor, reference: Tensor) -> Tensor:
        if isinstance(objective, PreferenceObjective):
            return objective.losses(pair_logps(logps, reference, batch.trees))
        return objective.losses(logps, reference, batch)

    with torch.no_grad():
        found = measure_identity(subject.policy, batch.trees, batch.ref_logps, losses, subject.temperature)
    findings = identity_findings(found, subject.same_model, subject.half)
    value = _value_at_reference(objective.loss) if isinstance(objective, PreferenceObjective) else None
    return made(IDENTITY, found.describe(), [*findings, *value_findings(found, value)])


def _value_at_reference(loss: PairLoss) -> float | None:
    """What the catalog says that a pair's loss is where policy and reference agree; None where it does not say."""
    values = []
    for part in loss.parts:
        usual = {**part.loss.defaults, "beta": part.settings.get("beta")}
        plain = {**usual, **part.settings} == usual and not (part.loss.running_mean or part.loss.couples_batch)
        value = part.loss.value_at_reference(part.settings.get("beta")) if plain else None
        if value is None or loss.divergence != "reverse_kl":
            return None
        values.append(part.weight * value)
    return sum(values)
