"""Responses in flight: prompts are computed once for all their draws, then every step adds a token to each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from trueup.errors import UserError
from trueup.models.forward import backbone_of, head_of
from trueup.models.key_values import merged
from trueup.ops.logprobs import Head

PADDING = 0.125
"""Prompts are computed together while their padding is at most this share of their tokens."""


@dataclass(frozen=True)
class _Prefill:
    """What a model made of prompts padded on the left: its cache, and the last hidden state of each ``[P,D]``."""

    cache: Any
    hidden: Tensor
    lengths: Tensor


class Decoder:
    """The rows in flight, fewer as responses end; ``row`` says which response each of them is."""

    def __init__(self, model: Any, cache: Any, parts: Sequence[_Prefill], owners: Sequence[Tensor], first: int) -> None:
        self.backbone: Any = backbone_of(model)
        self.head: Head = head_of(model)
        self.cache = cache
        self.hidden = torch.cat([part.hidden[owner] for part, owner in zip(parts, owners, strict=True)])
        lengths = torch.cat([part.lengths[owner] for part, owner in zip(parts, owners, strict=True)])
        width = int(lengths.max())
        self.mask = (torch.arange(width, device=lengths.device) >= width - lengths[:, None]).long()
        self.position = lengths - 1
        self.row = torch.arange(first, first + len(lengths), device=lengths.device)

    def logits(self) -> Tensor:
        """Next-token logits of the rows in flight ``[B,V]``."""
        return self.head.logits(self.hidden)

    def advance(self, tokens: Tensor, keep: Tensor) -> None:
        """Feed the tokens drawn ``[B]``; only the rows ``keep`` go on, in that order."""
        if len(keep) < len(tokens):
            self.cache.batch_select_indices(keep)
            tokens, self.mask = tokens[keep], self.mask[keep]
            self.position, self.row = self.position[keep], self.row[keep]
        self.position = self.position + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        output = self.backbone(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.position[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.hidden = output.last_hidden_state[:, -1]


def survivors(going: Tensor) -> Tensor:
    """Rows that go on, bool ``[B]`` -> i64: each place that is given up is taken by a row from the end."""
    kept = going.nonzero().squeeze(1)
    order = torch.arange(len(kept), device=kept.device)
    order[~going[: len(kept)]] = kept[kept >= len(kept)]
    return order


def prefill(
    model: Any, prompts: Sequence[tuple[int, ...]], draws: Sequence[int], device: torch.device
) -> list[Decoder]:
    """Compute each prompt once and return what decodes its draws: rows are in the order of the prompts.

    Prompts of like length are computed together, so that little is padded. All of them are then decoded together, or,
    where the model's cache is not made of keys and values alone, each such group by itself, in the model's own cache.

    Args:
        model: a transformers causal model in evaluation mode.
        prompts: token ids, shortest first.
        draws: for each prompt the number of its responses.
        device: where the model is.
    """
    ends = [0, *accumulate(map(len, groups := _alike(prompts)))]
    parts = [_prefilled(model, group, device) for group in groups]
    owners = [
        torch.arange(end - start, device=device).repeat_interleave(torch.tensor(draws[start:end], device=device))
        for start, end in pairwise(ends)
    ]
    cache = merged([part.cache for part in parts], owners)
    if cache is not None:
        return [Decoder(model, cache, parts, owners, 0)]
    return _apart(model, parts, owners)


def _apart(model: Any, parts: Sequence[_Prefill], owners: Sequence[Tensor]) -> list[Decoder]:
    """One decoder for each prefill, in the cache that the model made."""
    decoders: list[Decoder] = []
    first = 0
    for part, owner in zip(parts, owners, strict=True):
        part.cache.batch_select_indices(owner)
        decoders.append(Decoder(model, part.cache, [part], [owner], first))
        first += len(owner)
    return decoders


def _alike(prompts: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Cut prompts, shortest first, where padding them to the next one's length would cost more than ``PADDING``."""
    groups: list[list[tuple[int, ...]]] = []
    tokens = 0
    for prompt in prompts:
        if not groups or len(prompt) * (len(groups[-1]) + 1) > (1 + PADDING) * (tokens + len(prompt)):
            groups.append([])
            tokens = 0
        groups[-1].append(prompt)
        tokens += len(prompt)
    return groups


def _prefilled(model: Any, prompts: Sequence[tuple[int, ...]], device: torch.device) -> _Prefill:
    longest = max(map(len, prompts))
    ids = torch.tensor([(0,) * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    mask = (torch.arange(longest, device=device) >= longest - lengths[:, None]).long()
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    output = backbone_of(model)(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True)
    cache = getattr(output, "past_key_values", None)
    if cache is None or any(getattr(cache, "is_linear", ())):
        raise UserError(
            f"{type(model).__name__} keeps a running state in place of keys and values, which the sampler cannot share "
            "among the responses to a prompt. Use a model that is made of attention layers"
        )
    return _Prefill(cache, output.last_hidden_state[:, -1], lengths)
