"""Are samples drawn from the distribution that training scores, or from one that was cut, cooled or heated?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import zip_longest

import torch
from torch import Tensor

from trueup.data.batching import map_tokens
from trueup.data.trees import Tree, split_branches
from trueup.health.findings import Finding
from trueup.models.forward import head_of, hidden_states
from trueup.ops.logprobs import CHUNK_LOGITS, Head
from trueup.preflight.outcome import Outcome, made
from trueup.preflight.subject import Sample, Subject
from trueup.types import TokenTrees

CHECK = "samples and their distribution"
TEMPERATURES = (0.25, 0.5, 0.7, 0.85, 1.2, 1.5, 2.0)
"""What the sampler's may be in units of the trainer's."""
HEATS = len(TEMPERATURES)
MOST = 1024
"""Tokens that are enough: at a temperature of 0.7 a few dozen tell."""
TOP_K, TOP_P = (2, 5, 10, 20, 50), (0.5, 0.7, 0.8, 0.9, 0.95)
EVIDENCE = math.log(1e6)
"""Log of the likelihood ratio from which on it is no chance: of a million sound runs at most one has it (Ville)."""
REFERENCE = "rule K01; F84, F105, F106 of the catalogue of silent failures"


@torch.no_grad()
def check_draws(subject: Subject, sample: Sample) -> Outcome | None:
    """Compare, by the likelihood of the sampled tokens, what training scores with other ways to draw from it.

    Whatever the model, the likelihood ratio of a fixed alternative to what tokens are really drawn from has mean 1, so
    that it, and the mean over several, exceeds 1e6 with a probability of at most 1e-6. What the sampler says of its
    tokens plays no part: many report log-probabilities from before their temperature or their cut.
    """
    if sample.rehearsal is None:
        return None
    trees = _few(tree for asked in sample.rehearsal.asked for tree in asked.trees)
    head, names = head_of(subject.policy, subject.temperature), alternatives()
    sums = torch.zeros(len(names), dtype=torch.float64)

    def add(laid: TokenTrees) -> Tensor:
        hidden = hidden_states(subject.policy, laid)[laid.source]
        for part, drawn in _pieces(hidden, laid.target, head):
            logps = head.logits(part).log_softmax(1)
            sums[:HEATS].add_(heat_ratios(logps, drawn).sum(dim=0, dtype=torch.float64).cpu())
            if bool((sums[HEATS:] > -math.inf).any()):  # a token outside every cut settles the matter for good
                sums[HEATS:].add_(cut_ratios(logps, drawn).sum(dim=0, dtype=torch.float64).cpu())
        return torch.zeros(len(laid.target))

    number = len(map_tokens(trees, add, subject.batching))
    evidence = float(sums.logsumexp(0)) - math.log(len(names))
    most, way = float(sums.max()), names[int(sums.argmax())]
    told = f"{number} sampled tokens: drawn {way} they would be e^{most:.1f} times as likely"
    if not evidence > EVIDENCE:
        return made(CHECK, told)
    message = (
        f"The {number} sampled tokens would be e^{most:.0f} times as likely drawn {way} as from the distribution "
        "that training scores."
    )
    remedy = "Compare temperature, top-k, top-p, minimum length and banned tokens of the sampler with the settings."
    found = {"tokens": number, "log_likelihood_ratio": most, "as_if": way}
    return made(CHECK, told, [Finding("drawn-otherwise", "fatal", 0, message, remedy, found, REFERENCE)])


def alternatives() -> list[str]:
    """The ways to draw that are compared, in the order of ``heat_ratios`` and then ``cut_ratios``."""
    temperatures = [f"at {share:g} times the temperature" for share in TEMPERATURES]
    return [*temperatures, *(f"among the top {k}" for k in TOP_K), *(f"with top-p {p:g}" for p in TOP_P)]


def heat_ratios(logps: Tensor, target: Tensor) -> Tensor:
    """Log-likelihood of each token at other temperatures, less that under ``logps``; ``[N, temperatures]``.

    Args:
        logps: float ``[N,V]``, log-probabilities of all tokens.
        target: i64 ``[N]``, those that were drawn.
    """
    own = logps.gather(1, target[:, None]).squeeze(1)
    return torch.stack([own / share - (logps / share).logsumexp(1) - own for share in TEMPERATURES], dim=1)


def cut_ratios(logps: Tensor, target: Tensor) -> Tensor:
    """The same where only the most probable tokens are drawn, top-k and then top-p; ``[N, cuts]``.

    Of equally probable tokens those that come first in the vocabulary are kept, so that each cut is one distribution.
    """
    logps = logps.double()
    own = logps.gather(1, target[:, None]).squeeze(1)
    ranked = logps.exp().sort(dim=1, descending=True).values
    equal = (logps == own[:, None]) & (torch.arange(logps.shape[1], device=logps.device) < target[:, None])
    rank = (logps > own[:, None]).sum(dim=1) + equal.sum(dim=1)
    mass = ranked.cumsum(1).clamp(max=1.0)
    before = mass.gather(1, rank[:, None]).squeeze(1) - own.exp()
    out = []
    for k in TOP_K:
        kept = mass[:, min(k, logps.shape[1]) - 1]
        out.append(torch.where(rank < k, -kept.log(), -math.inf))
    for p in TOP_P:
        last = (mass < p).sum(dim=1).clamp(max=logps.shape[1] - 1)
        kept = mass.gather(1, last[:, None]).squeeze(1)
        out.append(torch.where(before < p, -kept.log(), -math.inf))
    return torch.stack(out, dim=1)


def _few(trees: Iterable[Tree]) -> list[Tree]:
    """Single responses, the first of every tree before the second, up to ``MOST`` tokens and one more."""
    branches = [split_branches(tree) for tree in trees]
    taken: list[Tree] = []
    for part in (part for turn in zip_longest(*branches) for part in turn if part is not None):
        if sum(len(tree.responses[0]) for tree in taken) >= MOST:
            break
        taken.append(part)
    return taken


def _pieces(hidden: Tensor, target: Tensor, head: Head) -> Iterable[tuple[Tensor, Tensor]]:
    rows = max(1, CHUNK_LOGITS // head.weight.shape[0] // 4)
    return zip(hidden.split(rows), target.split(rows), strict=True)
