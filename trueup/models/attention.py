"""Who sees whom: attention masks of token trees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trueup.types import TokenTrees


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
    segment = trees.segment
    length = segment.shape[1]
    prompt = trees.prompt_of[segment.clamp(min=0)]
    own = segment[:, :, None] == segment[:, None, :]
    from_prompt = prompt[:, :, None] == segment[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    real = (segment >= 0)[:, :, None]
    alone = torch.eye(length, dtype=torch.bool, device=segment.device)
    return ((own | from_prompt) & causal & real) | alone


def attention_mask(trees: TokenTrees, config: Any) -> Tensor | dict[str, Tensor | None] | None:
    """Return what a transformers backbone takes as ``attention_mask`` for these trees.

    None where causal attention is exact; a mask ``[R,1,T,T]``; or, for models that mix full and sliding-window layers,
    a dict by layer type. A window is measured in positions: row indices of a branch are further from its prompt than
    its tokens are.
    """
    window = sliding_window(config)
    kinds = set(getattr(config, "layer_types", None) or ())
    if window is None and is_chain(trees):
        return None
    visible = visibility(trees)
    full = _as_taken(visible, config)
    if window is None:
        return full
    distance = trees.positions[:, :, None] - trees.positions[:, None, :]
    near = _as_taken(visible & (distance < window), config)
    by_kind = {"full_attention": full, "sliding_attention": near}
    if not kinds:
        return near
    return {kind: by_kind[kind] for kind in kinds}


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
