"""What can be said of the data before training: does the reference read it, and what tells the sides apart?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from trueup.health.findings import Finding
from trueup.models.forward import head_of
from trueup.ops.logprobs import sum_by_branch
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Sample, Subject
from trueup.preflight.tells import Responses, Tell, find_tell
from trueup.train.objectives.unpaired import UnpairedObjective
from trueup.train.sources import DataSource

SUPPORT, SOURCES = "reference on the wanted responses", "sides told apart without the prompt"
NO_SUPPORT = 0.8
"""Share of a uniform model's surprise, ln V nats a token, from which on the reference does not read the text."""
APART = 0.95
"""AUC of the reference's log-probability a token from which on it alone tells the sides apart (D04)."""
LEAST = 16
"""Responses of each side below which nothing is said of the difference."""
MOST = 256
"""Rows whose responses are compared, and whose reference is asked for where it is stored."""


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
        f"The reference finds wanted responses nearly random: {nats:.2f} nats a token, {share:.0%} of pure guessing."
    )
    remedy = (
        "Check model.path, model.tokenizer and the chat template. Else fine-tune first (trueup sft), on broader data "
        "or, if you did, for fewer optim.steps; a larger batch will not repair this."
    )
    evidence = {"nats_per_token": nats, "share": share}
    return made(SUPPORT, told, [Finding("reference-unsupported", "fatal", 0, message, remedy, evidence, "rule D03")])


def check_sources(subject: Subject, sample: Sample) -> Outcome | None:
    """What tells wanted from unwanted responses without reading the prompt: a rule of tokens, or the reference alone.

    A rule of tokens or length needs no prompt, and is learnt in its place. The reference has read the prompt: that it
    tells the sides apart may mean no more than that the pairs are easy.
    """
    responses = _responses(subject, sample)
    if responses is None:
        return None
    wanted, unwanted = responses
    if min(len(wanted), len(unwanted)) < LEAST:
        return skipped(SOURCES, f"fewer than {LEAST} responses of each side are there before training")
    tell, auc = find_tell(wanted, unwanted), _reference_auc(subject, sample)
    of_reference = "" if auc is None else f"; AUC of the reference {auc:.2f}"
    of_tell = "no rule is right on 70 %" if tell is None else f"a rule is right on {tell.right:.0%}"
    told = f"{len(wanted)} against {len(unwanted)} responses: {of_tell}{of_reference}"
    if tell is not None:
        return made(SOURCES, told, [_told_by(tell, subject.encoder.tokenizer, auc)])
    if auc is None or 1 - APART <= auc <= APART:
        return made(SOURCES, told)
    message = (
        f"Before any training the wanted response of two is the likelier one per token in {auc:.0%} of the comparisons "
        "of responses: the reference alone tells the sides apart."
    )
    remedy = "Fine where pairs are meant to be easy; if the sides have different writers, sample both from one policy."
    return made(SOURCES, told, [Finding("source-separable", "note", 0, message, remedy, {"auc": auc}, "rule D04; F11")])


def _told_by(tell: Tell, tokenizer: Any, auc: float | None) -> Finding:
    text = repr(tokenizer.decode(list(tell.ids)))
    has = {
        "opening": f"open with {text}",
        "ending": f"end with {text}",
        "phrase": f"contain {text}",
        "length": f"have at most {tell.most} tokens",
    }[tell.kind]
    message = (
        f"{tell.unwanted:.0%} of the unwanted and {tell.wanted:.0%} of the wanted responses {has}: who never reads the "
        f"prompt is right on {tell.right:.0%}."
    )
    remedy = (
        "The model will learn that, and not what is preferred: remove it from the responses, or sample both sides from "
        "one policy (trueup data audit shows more)."
    )
    evidence = {"kind": tell.kind, "text": text, "wanted": tell.wanted, "unwanted": tell.unwanted, "auc": auc}
    return Finding("source-separable", "warning", 0, message, remedy, evidence, "F11; rule D04")


def _responses(subject: Subject, sample: Sample) -> tuple[Responses, Responses] | None:
    """Token ids of wanted and unwanted responses of the data; None where a method has no such sides."""
    if sample.rehearsal is not None:
        return None
    source = subject.source
    # Texts cost nothing: more are read than the reference is asked for, from all over the data.
    rows = sorted({number * len(source.trees) // MOST for number in range(MOST)})
    if isinstance(source, DataSource):
        trees = sample.trees if source.complete is not None else [source.trees[row] for row in rows]
        pairs = [tree.responses for tree in trees if len(tree.responses) == 2]
        return ([one for one, _ in pairs], [other for _, other in pairs]) if pairs else None
    judged = [(source.trees[row].responses[0], bool(source.desirable[row])) for row in rows]
    return [ids for ids, wanted in judged if wanted], [ids for ids, wanted in judged if not wanted]


def _reference_auc(subject: Subject, sample: Sample) -> float | None:
    """How well the reference alone tells the sides apart; None without one, or where too few responses are scored."""
    sides = _sides(subject, sample)
    return None if sides is None or min(map(len, sides)) < LEAST else _auc(*sides)


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
