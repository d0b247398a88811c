"""Frozen tensor bundles: what travels between rooms, with shapes.

Legend of the shapes: R rows, T row length, S segments, N response tokens, K branches (responses), B pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Bundle:
    """A frozen dataclass of tensors that can move to a device as one."""

    def to(self, device: torch.device | str) -> Self:
        """Return a copy whose tensors, nested bundles included, live on ``device``."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in moved.items() if hasattr(v, "to")})


@dataclass(frozen=True)
class TokenTrees(Bundle):
    """Prompts stored once, with their responses branching off.

    A token sees the earlier tokens of its own segment and of its segment's prompt, never a sibling branch,
    never another tree of the same row.

    Attributes:
        tokens: i64 ``[R,T]`` token ids; padding is arbitrary.
        positions: i64 ``[R,T]``; each branch restarts where its prompt ended.
        segment: i64 ``[R,T]``, the prompt or branch a token is in; -1 = padding. Numbers are unique in the batch.
        prompt_of: i64 ``[S]``, the segment of a segment's prompt; a prompt names itself.
        source: i64 ``[N]``, flat position (row * T + column) whose hidden state predicts ``target``.
        target: i64 ``[N]``, response tokens, the terminator included, in branch order.
        branch: i64 ``[N]``, which response a target belongs to, in ``0..K-1``, non-decreasing.
        last: i64 ``[K]``, flat position of each response's last token (where a reward model reads its score).
        tree: i64 ``[K]``, which tree (prompt) a response belongs to.
    """

    tokens: Tensor
    positions: Tensor
    segment: Tensor
    prompt_of: Tensor
    source: Tensor
    target: Tensor
    branch: Tensor
    last: Tensor
    tree: Tensor

    @property
    def num_branches(self) -> int:
        """K, the number of responses."""
        return self.last.shape[0]

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed, padding excluded."""
        return int((self.segment >= 0).sum())


@dataclass(frozen=True)
class SequenceLogps(Bundle):
    """Summed log-probabilities of responses and the number of tokens summed, which travel together.

    Attributes:
        total: float64 ``[K]``, nats.
        count: i64 ``[K]``, response tokens, the terminator included.
    """

    total: Tensor
    count: Tensor


@dataclass(frozen=True)
class PairLogps(Bundle):
    """What every pairwise preference loss is a function of.

    Attributes:
        chosen, rejected: float ``[B]``, summed policy log-probabilities, nats.
        chosen_count, rejected_count: ``[B]``, response tokens, the terminator included.
        ref_chosen, ref_rejected: float ``[B]``, the same sums under the reference; None for reference-free losses.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_count: Tensor
    rejected_count: Tensor
    ref_chosen: Tensor | None = None
    ref_rejected: Tensor | None = None


@dataclass(frozen=True)
class Decoding:
    """How responses are sampled: the same fields for training rollouts and for evaluation.

    Attributes:
        temperature: divides the logits; 0 takes the most probable token (greedy).
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches top_p; 1 keeps all.
        max_new_tokens: the cap on a response, its terminator included; a response that meets it is *truncated*.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 64
