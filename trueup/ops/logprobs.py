"""Token log-probabilities: the only place that shifts by one, and the only place that applies the head to a loss.

A causal model's hidden state at position t predicts the token at t + 1. ``predicting_positions`` states that once;
everything else in the project handles (source, target) pairs that already belong together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trueup.ops.products import linear, outer, product
from trueup.types import SequenceLogps

# Largest number of logits that exist at once: 6 Mi float32 = 24 MiB keeps a chunk near the caches of a CPU core, stays
# below the 32 MiB from which on glibc maps every tensor anew, and is large enough to fill a GPU's matrix units.
CHUNK_LOGITS = 6 << 20

# Logits of a whole call are kept for the backward pass while they fit in 64 MiB, which saves a quarter of the head's
# arithmetic; above that they are computed again.
KEPT_LOGITS = 1 << 24

# Rows of the head whose gradient is added up at once: the addend then stays in the caches.
BLOCK = 4096


def predicting_positions(prompt_last: int, first: int, count: int) -> np.ndarray:
    """Return the positions whose hidden states predict a response's tokens (the one-token shift).

    Args:
        prompt_last: position of the prompt's last token, which predicts the first response token.
        first: position of the first response token; the response is contiguous from there.
        count: number of response tokens, the terminator included.

    Returns:
        i64 ``[count]``: ``prompt_last, first, first + 1, ..., first + count - 2``.
    """
    positions = np.arange(first - 1, first - 1 + count, dtype=np.int64)
    positions[:1] = prompt_last
    return positions


@dataclass(frozen=True)
class Head:
    """The map from hidden states to logits, as causal language models define it.

    ``logits = softcap(scale * (hidden @ weight.T + bias))`` where ``softcap(x) = cap * tanh(x / cap)`` (Gemma 2) and
    a ``scale`` other than 1 is Cohere's and Granite's. ``temperature`` divides the result.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits ``[N,V]`` in float32 at least, for hidden states ``[N,D]``."""
        raw = linear(hidden, self.weight, self.bias)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        factor = self.scale / self.temperature
        if self.softcap is None:
            return raw if factor == 1.0 else raw * factor
        return torch.tanh(raw * (self.scale / self.softcap)) * (self.softcap / self.temperature)

    def grad_of_raw(self, logits: Tensor, grad: Tensor) -> Tensor:
        """Chain ``grad``, the gradient at ``logits``, back to ``hidden @ weight.T + bias``."""
        factor = self.scale / self.temperature
        if self.softcap is not None:
            squashed = logits * (self.temperature / self.softcap)
            grad = grad * (1 - squashed * squashed)
        return grad if factor == 1.0 else grad * factor


@dataclass(frozen=True)
class TokenScores:
    """Per response token: log-probability (differentiable), entropy of its distribution, and whether it is the mode.

    Attributes:
        logps: float ``[N]``, nats.
        entropy: float ``[N]``, nats, no gradient.
        top1: bool ``[N]``, no other token was more probable.
        collision: float ``[N]``, log Σ_v π(v)², the log-probability that two draws agree; no gradient. None unless it
            was asked for.
    """

    logps: Tensor
    entropy: Tensor
    top1: Tensor
    collision: Tensor | None = None


class _LinearTokenLogps(torch.autograd.Function):
    """log softmax(head(hidden))[target] in chunks; unless they are few, logits are computed again in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        head: Head,
        rows: int,
        kept: int,
        collision: bool,
    ) -> tuple[Tensor | None, ...]:
        """Return (logps, entropy, top1, log of the collision probability or None), each ``[N]``."""
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logps = torch.empty(target.shape, dtype=wide, device=hidden.device)
        entropy, normaliser = torch.empty_like(logps), torch.empty_like(logps)
        top1 = torch.empty(target.shape, dtype=torch.bool, device=hidden.device)
        agree = torch.empty_like(logps) if collision else None
        keeps = any(ctx.needs_input_grad) and len(target) * head.weight.shape[0] <= kept
        ctx.kept = {}
        for piece in _pieces(len(target), rows):
            logits = head.logits(hidden[piece])
            if keeps:
                ctx.kept[piece.start] = logits
            picked = logits.gather(1, target[piece, None]).squeeze(1)
            peak = logits.amax(dim=1)
            weights = (logits - peak[:, None]).exp_()
            total = weights.sum(dim=1)
            normaliser[piece] = peak + total.log()
            logps[piece] = picked - normaliser[piece]
            entropy[piece] = normaliser[piece] - torch.linalg.vecdot(weights, logits) / total
            top1[piece] = picked >= peak
            if agree is not None:
                agree[piece] = torch.linalg.vecdot(weights, weights).log() - 2 * total.log()
        ctx.save_for_backward(hidden, weight, bias, target, normaliser)
        ctx.head, ctx.rows = head, rows
        ctx.mark_non_differentiable(entropy, top1, *([] if agree is None else [agree]))
        return logps, entropy, top1, agree

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """D logp / d logits = onehot(target) - softmax; the rest is the chain rule through the head."""
        hidden, weight, bias, target, normaliser = ctx.saved_tensors
        head, grad = ctx.head, grads[0]
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for piece in _pieces(len(target), ctx.rows):
            logits = ctx.kept.pop(piece.start, None)
            logits = head.logits(hidden[piece]) if logits is None else logits
            # Where nothing asks for the logits again, they become their slopes in place.
            slope = (logits if head.softcap is None else logits.clone()).sub_(normaliser[piece, None]).exp_()
            slope = slope.mul_(-grad[piece, None])
            slope.scatter_add_(1, target[piece, None], grad[piece, None].to(slope.dtype))
            slope = head.grad_of_raw(logits, slope).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[piece] = product(slope, weight)
            if grad_weight is not None:
                _add_product(grad_weight, slope, hidden[piece])
            if grad_bias is not None:
                grad_bias += slope.sum(dim=0)
        return grad_hidden, grad_weight, grad_bias, *[None] * 5


def _add_product(total: Tensor, slope: Tensor, hidden: Tensor) -> None:
    """Add ``slope.T @ hidden`` to ``total`` in place: on a CPU in blocks, so that what is added stays in the caches."""
    if total.device.type != "cpu":
        total.addmm_(slope.T, hidden)
        return
    for part in _pieces(len(total), BLOCK):
        total[part] += outer(slope[:, part], hidden)


def _pieces(length: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, length)) for start in range(0, length, rows)]


def linear_token_logps(
    hidden: Tensor,
    head: Head,
    target: Tensor,
    chunk_logits: int = CHUNK_LOGITS,
    kept_logits: int = KEPT_LOGITS,
    collision: bool = False,
) -> TokenScores:
    """Return the log-probability of each target token under its predicting hidden state.

    The head is applied ``chunk_logits / V`` rows at a time, in the forward and, unless they are few, again in the
    backward pass, so that no large tensor of size N x V exists. Sums are float32 (float64 for float64 input).

    Args:
        hidden: ``[N,D]``, the hidden states at the predicting positions.
        head: how hidden states become logits.
        target: i64 ``[N]``, the tokens predicted.
        chunk_logits: the largest number of logits held at once.
        kept_logits: up to so many in all are kept for the backward pass.
        collision: also measure log Σ_v π(v)².
    """
    rows = max(1, chunk_logits // head.weight.shape[0])
    scores = _LinearTokenLogps.apply(hidden, head.weight, head.bias, target, head, rows, kept_logits, collision)
    return TokenScores(*scores)  # type: ignore[misc]


@torch.no_grad()
def linear_exact_kl(
    hidden: Tensor, head: Head, other_hidden: Tensor, other_head: Head, chunk_logits: int = CHUNK_LOGITS
) -> Tensor:
    """Return KL(p || q) of the whole next-token distributions at each position, nats ``[N]``.

    Args:
        hidden: ``[N,D]``, hidden states of p; ``head`` turns them into its logits.
        head: the head of p.
        other_hidden: ``[N,E]``, hidden states of q at the same positions.
        other_head: the head of q, over the same vocabulary.
        chunk_logits: the largest number of logits held at once for each model.
    """
    rows = max(1, chunk_logits // head.weight.shape[0])
    out = []
    for piece in _pieces(len(hidden), rows):
        log_p = head.logits(hidden[piece]).log_softmax(dim=1)
        log_q = other_head.logits(other_hidden[piece]).log_softmax(dim=1)
        out.append((log_p.exp() * (log_p - log_q)).sum(dim=1))
    return torch.cat(out) if out else hidden.new_zeros(0)


def sum_by_branch(token_logps: Tensor, branch: Tensor, num_branches: int) -> SequenceLogps:
    """Sum token log-probabilities ``[N]`` to responses ``[K]``; a response without tokens has total 0 and count 0.

    Totals are float64: those of a few thousand tokens are thousands of nats, where float32 numbers lie 5e-4 apart, and
    what losses are made of is the small difference of two of them.
    """
    total = torch.zeros(num_branches, dtype=torch.float64, device=token_logps.device)
    summed = total.index_add(0, branch, token_logps.to(torch.float64))
    return SequenceLogps(summed, torch.bincount(branch, minlength=num_branches))
