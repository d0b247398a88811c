"""Drawing the next token: from which tokens, by which uniform number, and with which probability it was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Philox
from torch import Tensor

from trueup.errors import RunError
from trueup.types import Decoding

BLOCK = 256
"""Tokens that are chosen among together: a vocabulary is only summed by blocks, and one block is gone into."""

UNITS = 2.0**40
"""The largest weight of a row as an integer; a weight below 1 / UNITS of it is never drawn."""

FIRST_LOOK = 1024
"""Most probable tokens among which the nucleus is looked for first; sorting a whole vocabulary costs far more."""


@dataclass(frozen=True)
class Drawn:
    """One token for each of B rows.

    Attributes:
        tokens: i64 ``[B]``.
        logps: ``[B]``, log-probability under the distribution that was drawn from: temperature, top-k and top-p
            included, renormalised; 0 where the most probable token is taken. Nats.
        full_logps: ``[B]``, the same under the softmax over the whole vocabulary at the same temperature (at 1 where
            the most probable token is taken).
    """

    tokens: Tensor
    logps: Tensor
    full_logps: Tensor


def uniforms(seed: int, responses: Sequence[tuple[int, int]], count: int) -> Tensor:
    """Return uniform numbers in [0, 1) for the tokens of responses, each a pair (prompt, draw); float64 ``[K,count]``.

    They are a function of (seed, prompt, draw, place) alone, by a counter-based generator (Philox; Salmon et al. 2011):
    other responses beside it or a higher cap leave those of a response unchanged.
    """
    raw = np.empty((len(responses), count), dtype=np.uint64)
    source = Philox(key=[seed, 0])
    fresh = source.state
    for row, (prompt, number) in enumerate(responses):
        fresh["state"]["key"][1], fresh["state"]["counter"][1] = prompt, number
        source.state = fresh
        raw[row] = source.random_raw(count)
    return torch.from_numpy((raw >> 11) * 2.0**-53)


def draw(logits: Tensor, decoding: Decoding, uniform: Tensor) -> Drawn:
    """Draw one token a row from logits ``[B,V]`` by inverting the cumulative distribution at ``uniform``, ``[B]``.

    Raises:
        RunError: a row of logits has no finite maximum.
    """
    scaled = logits if decoding.temperature in (0, 1) else logits / decoding.temperature
    peak, best = scaled.max(dim=1)
    if not bool(peak.isfinite().all()):
        raise RunError("the model's logits are not finite, so nothing can be sampled from it; its weights are broken")
    weights = (scaled - peak[:, None]).exp_()
    if decoding.temperature == 0:
        return Drawn(best, torch.zeros_like(peak), -weights.sum(dim=1).log())
    if 0 < decoding.top_k < logits.shape[1] or decoding.top_p < 1:
        values, ids = _most_probable(weights, decoding)
        tokens = ids.gather(1, _choose(values, uniform)[:, None])
    else:
        values, tokens = weights, _choose(weights, uniform)[:, None]
    relative = scaled.gather(1, tokens).squeeze(1) - peak
    full = relative - weights.sum(dim=1).log()
    return Drawn(tokens.squeeze(1), full if values is weights else relative - values.sum(dim=1).log(), full)


def _choose(weights: Tensor, uniform: Tensor) -> Tensor:
    """Choose one of V for each row, with probability in proportion to its weight; ``[B,V]``, ``[B]`` -> ``[B]``."""
    rows, size = weights.shape
    padded = torch.nn.functional.pad(weights, (0, -size % BLOCK)) if size % BLOCK else weights
    blocks = padded.view(rows, -1, BLOCK)
    block, rest = _pick(blocks.sum(dim=2), uniform[:, None])
    inside, _ = _pick(blocks[torch.arange(rows, device=block.device), block.squeeze(1)], rest)
    return (block * BLOCK + inside).squeeze(1)


def _pick(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Invert the cumulative sum of each row at ``uniform``; both ``[B,1]``: the place, and how far into it, in [0, 1].

    Weights become integers, whose sums are exact: they rise in whatever order they were added, and a place that has no
    weight has no step that could be met, not even by a number that was rounded up to 1.
    """
    counts = (weights * (UNITS / weights.amax(dim=1, keepdim=True))).long()
    total = counts.cumsum(dim=1)
    target = uniform * total[:, -1:]
    place = torch.searchsorted(total, target.long().minimum(total[:, -1:] - 1), right=True)
    step = counts.gather(1, place)
    return place, ((target - (total.gather(1, place) - step)) / step).clamp(0, 1)


def _most_probable(weights: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor]:
    """Return weights and ids of the tokens that may be drawn, ``[B,n]``, falling; weight 0 = outside the nucleus.

    The nucleus is taken of what top-k leaves: the smallest set whose share of the weight reaches top-p.
    """
    if 0 < decoding.top_k < weights.shape[1]:
        values, ids = weights.topk(decoding.top_k, dim=1)
        mass = values.sum(dim=1, keepdim=True)
    else:
        mass = weights.sum(dim=1, keepdim=True)
        values, ids = _reaching(weights, decoding.top_p * mass)
    if decoding.top_p == 1:
        return values, ids
    before = values.cumsum(dim=1, dtype=torch.float64) - values
    return values.masked_fill(before >= decoding.top_p * mass, 0), ids


def _reaching(weights: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable tokens of each row, as many as the row that needs most of them needs to reach ``mass``."""
    size = min(FIRST_LOOK, weights.shape[1])
    while True:
        values, ids = weights.topk(size, dim=1)
        if size == weights.shape[1] or bool((values.sum(dim=1, keepdim=True) >= mass).all()):
            return values, ids
        size = min(8 * size, weights.shape[1])
