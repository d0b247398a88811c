"""Who sees whom: attention over token trees, by mask or tree by tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from trueup.types import TokenTrees

BY_TREE = "trueup_by_tree"
"""Name under which `by_tree` is an attention implementation of transformers."""

FLEX = "flex_attention"
"""transformers' name for PyTorch's FlexAttention."""

WORTH_A_CALL: ContextVar[int] = ContextVar("WORTH_A_CALL", default=4096)
"""Pairs of tokens that a further call of attention must save: a tree of a few dozen tokens is taken whole."""

Attend = Callable[..., tuple[Tensor, Any]]
"""An attention function of transformers: (module, query, key, value, mask, **options) -> (output, weights)."""


@dataclass(frozen=True)
class _Piece:
    """Neighbouring tokens of a flat row that attend together.

    Attributes:
        own: the tokens.
        prompt: what they see beside themselves: their prompt, where it does not lie in ``own`` already.
        mask: bool ``[1,1,own,prompt + own]``; None where causal attention over ``own`` is exact.
    """

    own: slice
    prompt: slice | None
    mask: Tensor | None

    def seen(self, values: Tensor) -> Tensor:
        """What these tokens may look at, of keys or values ``[1,heads,T,width]``."""
        own = values[:, :, self.own]
        return own if self.prompt is None else torch.cat([values[:, :, self.prompt], own], dim=2)


# A model hands its mask down to every layer untouched, so the mask can stand for the pieces. Weak: gone with its batch.
_PIECES: WeakIdKeyDictionary = WeakIdKeyDictionary()


def by_tree(attend: Attend) -> Attend:
    """Return an attention function that takes a flat row piece by piece, and everything else as ``attend`` does.

    A piece is a prompt with its first response, or further responses of together a prompt's length, which also look at
    the prompt; a small tree is one piece under a mask. So nothing is computed between trees, little between the
    responses of one, and nothing is padded: for a prompt of P tokens with G longer responses of L, attention costs
    about P (P + G L) + G L^2 where a mask over the tree costs (P + G L)^2.
    """

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        pieces = _PIECES.get(mask) if isinstance(mask, Tensor) else None
        if pieces is None:
            return attend(module, query, key, value, mask, **options)
        parts = [
            attend(module, query[:, :, piece.own], piece.seen(key), piece.seen(value), piece.mask, **options)[0]
            for piece in pieces
        ]
        return torch.cat(parts, dim=1), None

    return attention


def _stand_in(trees: TokenTrees, window: int | None) -> Tensor:
    """A mask that stands for the pieces of a flat row; empty, so that a model that looks into it fails at once."""
    mask = torch.empty(1, 1, 0, 0, device=trees.tokens.device)
    _PIECES[mask] = tuple(_pieces(trees, window))
    return mask


def _pieces(trees: TokenTrees, window: int | None) -> Iterator[_Piece]:
    """The row in pieces, in order; its segments are prompts, each followed by its responses."""
    numbers, counts = torch.unique_consecutive(trees.segment[0], return_counts=True)
    ends = counts.cumsum(0).tolist()
    segments = [slice(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]
    owners = trees.prompt_of[numbers].tolist()
    for _, tree in groupby(zip(owners, segments, strict=True), key=itemgetter(0)):
        yield from _pieces_of_tree([segment for _, segment in tree], trees, window)


def _pieces_of_tree(segments: Sequence[slice], trees: TokenTrees, window: int | None) -> Iterator[_Piece]:
    """A prompt with its first response, then further ones; or all of them, where calls cost more than they save."""
    prompt, whole = segments[0], slice(segments[0].start, segments[-1].stop)
    chain, others = slice(prompt.start, segments[:2][-1].stop), _grouped(segments[2:], _length(prompt))
    apart = _length(chain) ** 2 + sum(_length(own) * (_length(prompt) + _length(own)) for own in others)
    if _length(whole) ** 2 - apart < WORTH_A_CALL.get() * len(others):
        yield _Piece(whole, None, _mask_of([whole], trees, window))
        return
    yield _Piece(chain, None, _mask_of([chain], trees, window))
    for own in others:
        yield _Piece(own, prompt, _mask_of([prompt, own], trees, window))


def _grouped(responses: Sequence[slice], least: int) -> list[slice]:
    """Neighbouring responses in groups of ``least`` tokens: each group copies the prompt's keys and values."""
    groups: list[slice] = []
    for own in responses:
        if groups and _length(groups[-1]) < least:
            groups[-1] = slice(groups[-1].start, own.stop)
        else:
            groups.append(own)
    return groups


def _length(part: slice) -> int:
    return part.stop - part.start


def _mask_of(parts: Sequence[slice], trees: TokenTrees, window: int | None) -> Tensor | None:
    """What the tokens of the last part see of all parts ``[1,1,own,all]``; None where causal attention is exact."""
    segment, positions = (torch.cat([rows[:, p] for p in parts], dim=1) for rows in (trees.segment, trees.positions))
    if len(parts) == 1 and segment.unique().numel() <= 2 and (window is None or segment.shape[1] <= window):
        return None
    visible = _visible(segment, trees.prompt_of)
    if window is not None:
        visible = visible & _near(positions, window)
    return visible[:, -_length(parts[-1]) :][:, None]


def is_chain(trees: TokenTrees) -> bool:
    """True if every row is one prompt with one response, padded on the right: plain causal attention is then exact."""
    per_row = trees.segment.amax(dim=1) - trees.segment[:, 0] + 1
    return bool((per_row <= 2).all()) and bool((trees.segment[:, 0] >= 0).all()) and _one_tree_a_row(trees)


def _one_tree_a_row(trees: TokenTrees) -> bool:
    prompts = torch.unique(trees.prompt_of)
    return len(prompts) == trees.tokens.shape[0]


def visibility(trees: TokenTrees) -> Tensor:
    """Return bool ``[R,T,T]``: may the token in column i attend to the token in column j?

    It may, if j is not later and lies in i's own segment or in the prompt of i's segment. Padding sees itself only,
    which keeps its softmax finite and its values out of everything else.
    """
    return _visible(trees.segment, trees.prompt_of)


def _visible(segment: Tensor, prompt_of: Tensor) -> Tensor:
    length = segment.shape[1]
    prompt = prompt_of[segment.clamp(min=0)]
    own = segment[:, :, None] == segment[:, None, :]
    from_prompt = prompt[:, :, None] == segment[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    real = (segment >= 0)[:, :, None]
    alone = torch.eye(length, dtype=torch.bool, device=segment.device)
    return ((own | from_prompt) & causal & real) | alone


def _near(positions: Tensor, window: int) -> Tensor:
    return (positions[:, :, None] - positions[:, None, :]) < window


def attention_mask(trees: TokenTrees, config: Any) -> Tensor | dict[str, Tensor | None] | None:
    """Return what a transformers backbone takes as ``attention_mask`` for these trees.

    None where causal attention is exact; a mask ``[R,1,T,T]``; a stand-in for a flat row that is attended tree by
    tree; or, for models that mix full and sliding-window layers, a dict of these by layer type. A window is measured in
    positions: row indices of a branch are further from its prompt than its tokens are.
    """
    window = sliding_window(config)
    kinds = set(getattr(config, "layer_types", None) or ())
    if window is None and is_chain(trees):
        return None
    make = _maker(trees, config)
    if window is None:
        return make(trees, None)
    windows = {"full_attention": None, "sliding_attention": window}
    return {kind: make(trees, windows[kind]) for kind in kinds} if kinds else make(trees, window)


def _maker(trees: TokenTrees, config: Any) -> Callable[[TokenTrees, int | None], Any]:
    """What makes the mask that this model's attention takes."""
    kind = getattr(config, "_attn_implementation", None)
    if kind == FLEX:
        return _block_mask
    if kind == BY_TREE and trees.tokens.shape[0] == 1 and bool((trees.segment >= 0).all()):
        return _stand_in
    return partial(_over_rows, config=config)


def _block_mask(trees: TokenTrees, window: int | None) -> Any:
    """A sparse block mask for FlexAttention: blocks that nobody sees are not computed."""
    from torch.nn.attention.flex_attention import create_block_mask

    rows, length = trees.tokens.shape
    return create_block_mask(sees(trees, window), rows, None, length, length, device=trees.tokens.device)


def sees(trees: TokenTrees, window: int | None = None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return FlexAttention's (row, head, column i, column j) -> does i see j; the same relation as ``visibility``."""
    segment, positions = trees.segment, trees.positions
    prompt = trees.prompt_of[segment.clamp(min=0)]

    def mask(row: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        own = segment[row, i] == segment[row, j]
        related = (own | (prompt[row, i] == segment[row, j])) & (segment[row, i] >= 0) & (j <= i)
        if window is not None:
            related = related & (positions[row, i] - positions[row, j] < window)
        return related | (i == j)

    return mask


def _over_rows(trees: TokenTrees, window: int | None, config: Any) -> Tensor:
    visible = visibility(trees)
    return _as_taken(visible if window is None else visible & _near(trees.positions, window), config)


def takes_flat(config: Any) -> bool:
    """True for a model whose attention skips what lies between the trees of a row."""
    return getattr(config, "_attn_implementation", None) in (BY_TREE, FLEX)


def _as_taken(visible: Tensor, config: Any) -> Tensor:
    """``[R,1,T,T]`` as the attention implementation takes it: SDPA masks by bool, eager attention by addition."""
    mask = visible[:, None]
    if getattr(config, "_attn_implementation", "sdpa") != "eager":
        return mask
    dtype = getattr(config, "dtype", None) or torch.float32
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def sliding_window(config: Any) -> int | None:
    """The attention window of a model in tokens, or None if all its layers see everything."""
    if getattr(config, "use_sliding_window", True) is False:
        return None
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None)
