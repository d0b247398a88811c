"""What the reference says of the data: can it read the wanted responses, and does it alone tell the sides apart?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trueup.health.findings import Finding
from trueup.models.forward import head_of
from trueup.ops.logprobs import sum_by_branch
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Sample, Subject
from trueup.train.objectives.unpaired import UnpairedObjective
from trueup.train.sources import DataSource

SUPPORT, SOURCES = "reference on the wanted responses", "reference between the sides"
NO_SUPPORT = 0.8
"""Share of a uniform model's surprise, ln V nats a token, from which on the reference does not read the text."""
APART = 0.95
LEAST = 16
"""Responses of each side below which an AUC says nothing."""
MOST = 256
"""Rows that are asked for where the reference is stored."""


def check_support(subject: Subject, sample: Sample) -> Outcome | None:
    """The reference's surprise at the wanted responses, per token, against a uniform model's."""
    sides = _sides(subject, sample)
    if sides is None or not len(sides[0]):
        return None
    nats = -float(sides[0].mean())
    share = nats / math.log(head_of(subject.policy).weight.shape[0])
    told = f"{len(sides[0])} responses: {nats:.2f} nats a token, {share:.2f} of a uniform model's"
    if share < NO_SUPPORT:
        return made(SUPPORT, told)
    message = (
        f"The reference gives the wanted responses {nats:.2f} nats a token, {share:.0%} of a uniform model's surprise."
    )
    remedy = "Fine-tune first (trueup sft), on broader data, or stop it earlier; a larger batch will not repair this."
    evidence = {"nats_per_token": nats, "share": share}
    return made(SUPPORT, told, [Finding("reference-unsupported", "fatal", 0, message, remedy, evidence, "rule D03")])


def check_sources(subject: Subject, sample: Sample) -> Outcome | None:
    """How well the reference's log-probability per token alone tells wanted from unwanted responses."""
    sides = _sides(subject, sample)
    if sides is None:
        return None
    if min(map(len, sides)) < LEAST:
        return skipped(SOURCES, f"fewer than {LEAST} responses of each side are scored by a reference")
    auc = _auc(*sides)
    told = f"{len(sides[0])} against {len(sides[1])} responses: AUC {auc:.2f}"
    if 1 - APART <= auc <= APART:
        return made(SOURCES, told)
    message = (
        f"The reference's log-probability per token alone tells the sides apart (AUC {auc:.2f}), before any training."
    )
    remedy = "The model will learn where responses come from, not what is preferred: sample both sides from one policy."
    evidence = {"auc": auc, "wanted": len(sides[0]), "unwanted": len(sides[1])}
    return made(SOURCES, told, [Finding("source-separable", "warning", 0, message, remedy, evidence, "rule D04")])


def _sides(subject: Subject, sample: Sample) -> tuple[Tensor, Tensor] | None:
    """The reference's mean log-probability a token of wanted and of unwanted responses; None without a reference."""
    source = subject.source
    if getattr(source, "reference", None) is None or sample.rehearsal is not None:
        return None
    if not subject.stored:
        batch = sample.batch(range(len(sample.trees)))
        trees, logps = batch.trees, batch.ref_logps
        rows = None
    else:
        rows = list(subject.rows[:MOST])
        trees = subject.batching.collate([source.trees[row] for row in rows])
        logps = source.reference(rows, trees)
    summed = sum_by_branch(logps.float(), trees.branch, trees.num_branches)
    mean = (summed.total / summed.count.clamp(min=1)).cpu()
    if isinstance(source, DataSource):
        return mean[0::2], mean[1::2]
    assert isinstance(subject.objective, UnpairedObjective)
    wanted = torch.from_numpy(source.desirable[rows]) if rows is not None else batch.desirable.cpu()
    return mean[wanted], mean[~wanted]


def _auc(high: Tensor, low: Tensor) -> float:
    """The share of pairs (one of each side) in which the first is larger; ties count half."""
    gap = high[:, None] - low[None, :]
    return float(((gap > 0).float() + 0.5 * (gap == 0).float()).mean())
