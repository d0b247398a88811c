"""Two models whose answers are known, sent through the path on which training computes log-probabilities.

Every tree is replaced by one of the same lengths that counts: its prompt is 0, 1, 2, ... and each response goes on
from there. In that language the next token is the last one plus one, whatever the layout, so that no check shifts
anything to know what is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from trueup.data.trees import Tree
from trueup.health.findings import Finding
from trueup.models.forward import token_scores
from trueup.ops.logprobs import sum_by_branch
from trueup.preflight.outcome import Outcome, made
from trueup.preflight.subject import Sample, Subject
from trueup.train.objectives.preference import PreferenceObjective, pair_logps
from trueup.train.objectives.reward import RewardObjective

CHECK = "log-probabilities of known models"
LONGEST = 128
"""Tokens of a prompt or response that are kept: the stub's head is the square of the longest sequence."""
PEAK = 40.0
"""The logit of the right token; all others have 0, so its log-probability is 0 to float32."""
REFERENCE = "probe P4 of the catalogue of silent failures; F26 to F30, F98"


def check_stubs(subject: Subject, sample: Sample) -> Outcome | None:
    """A model that knows the next token must give every response 0; a uniform one must give every mean -ln V."""
    if isinstance(subject.objective, RewardObjective):
        return None
    trees = [_counting(sample.trees[i]) for i in sample.few]
    size = max(len(tree.prompt) + max(map(len, tree.responses)) for tree in trees) + 1
    batch, lengths = subject.batching.collate(trees), [len(r) for tree in trees for r in tree.responses]
    attends = getattr(subject.policy.config, "_attn_implementation", "sdpa")

    def score(peak: float) -> Tensor:
        stub = _Successor(size, peak, attends).to(subject.batching.device)
        with torch.no_grad():
            return token_scores(stub, batch).logps

    known, uniform = sum_by_branch(score(PEAK), batch.branch, batch.num_branches), score(0.0)
    worst = float(known.total.abs().max())
    wrong = max(abs(mean + math.log(size)) for mean in _means(subject, uniform, batch, lengths))
    findings = []
    if not worst <= 1e-3:
        findings.append(_misaligned(worst, size))
    if not wrong <= 1e-4 or known.count.tolist() != lengths:
        findings.append(_miscounted(wrong, known.count.tolist(), lengths))
    return made(
        CHECK,
        f"{len(lengths)} responses: a known text is off by {worst:.0e} nats, a uniform mean by {wrong:.0e}",
        findings,
    )


def _means(subject: Subject, logps: Tensor, batch: Any, lengths: Sequence[int]) -> list[float]:
    """Mean log-probability of each response by every way in which this objective takes one."""
    summed = sum_by_branch(logps, batch.branch, batch.num_branches).total
    means = [float(total) / length for total, length in zip(summed, lengths, strict=True)]
    if isinstance(subject.objective, PreferenceObjective):
        pairs = pair_logps(logps, None, batch)
        means += [*(pairs.chosen / pairs.chosen_count).tolist(), *(pairs.rejected / pairs.rejected_count).tolist()]
    return means


def _counting(tree: Tree) -> Tree:
    """A tree of the same lengths in which every token is the one before it plus one."""
    prompt = min(len(tree.prompt), LONGEST)
    ends = (prompt + min(len(response), LONGEST) for response in tree.responses)
    return Tree(tuple(range(prompt)), tuple(tuple(range(prompt, end)) for end in ends))


class _Successor(nn.Module):
    """Looks like a transformers causal model to ``models.forward``; gives the next number the logit ``peak``."""

    def __init__(self, size: int, peak: float, attends: str) -> None:
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation=attends)
        self.base_model = _OneHot(size, self.config)
        self.head = nn.Linear(size, size, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(peak * torch.eye(size))

    def get_output_embeddings(self) -> nn.Linear:
        return self.head


class _OneHot(nn.Module):
    def __init__(self, size: int, config: Any) -> None:
        super().__init__()
        self.size, self.config = size, config

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        following = (input_ids + 1).clamp(max=self.size - 1)
        return SimpleNamespace(last_hidden_state=nn.functional.one_hot(following, self.size).float())


def _misaligned(worst: float, size: int) -> Finding:
    message = (
        f"A model that is sure of every next token gives a response {worst:.3g} nats where 0 is right: "
        "log-probabilities are read at other positions than the tokens they belong to."
    )
    remedy = "Look at the pairs of source and target in ops/logprobs and data/trees; a shift by one looks like this."
    evidence = {"largest_total": worst, "vocabulary": size}
    return Finding("logps-misaligned", "fatal", 0, message, remedy, evidence, REFERENCE)


def _miscounted(wrong: float, counts: Sequence[int], lengths: Sequence[int]) -> Finding:
    message = (
        f"Under a uniform model every mean log-probability must be that of one token, and one is off by {wrong:.3g} "
        f"nats; tokens counted {list(counts)}, tokens there are {list(lengths)}."
    )
    remedy = "A sum, a count or its denominator leaves tokens out or takes some twice: see sum_by_branch and its users."
    evidence = {"largest_error": wrong, "counted": list(counts), "lengths": list(lengths)}
    return Finding("logps-miscounted", "fatal", 0, message, remedy, evidence, REFERENCE)
