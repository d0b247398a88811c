"""Attention over trees, done in several ways, is one relation: who sees whom."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trueup.data.trees import Layout, Tree, collate
from trueup.models import attention
from trueup.models.attention import BY_TREE, attention_mask, by_tree, sees, visibility

IDS = st.lists(st.integers(3, 60), min_size=1, max_size=6).map(tuple)
RESPONSES = st.lists(st.one_of(IDS, st.just(())), min_size=0, max_size=4).map(tuple)
"""Some without a token, as in a prompt that is scored alone."""
TREES = st.lists(st.builds(Tree, IDS, RESPONSES), min_size=1, max_size=4).filter(lambda t: any(x.responses for x in t))


class Config:
    """What a model says of its attention."""

    def __init__(self, sliding_window: int | None = None) -> None:
        self._attn_implementation = BY_TREE
        self.sliding_window = sliding_window


@given(trees=TREES, layout=st.sampled_from(["flat", "shared", "plain"]), packing=st.booleans())
def test_flex_attention_is_told_the_same_relation(trees: list[Tree], layout: Layout, packing: bool) -> None:
    batch = collate(trees, layout, packing)
    rows, length = batch.tokens.shape
    row, i, j = torch.meshgrid(torch.arange(rows), torch.arange(length), torch.arange(length), indexing="ij")
    assert torch.equal(sees(batch)(row, torch.zeros_like(row), i, j), visibility(batch))


@given(trees=TREES, window=st.integers(1, 5))
def test_flex_attention_measures_a_window_in_positions(trees: list[Tree], window: int) -> None:
    batch = collate(trees, "flat")
    i, j = torch.meshgrid(*[torch.arange(batch.tokens.shape[1])] * 2, indexing="ij")
    near = batch.positions[0][:, None] - batch.positions[0][None, :] < window
    found = sees(batch, window)(torch.zeros_like(i), torch.zeros_like(i), i, j)
    assert torch.equal(found, visibility(batch)[0] & near)


@pytest.mark.parametrize("worth", [-(10**6), 8, 10**6])
@pytest.mark.parametrize("window", [None, 3])
@given(trees=TREES)
def test_piece_by_piece_equals_a_mask_over_the_row(worth: int, window: int | None, trees: list[Tree]) -> None:
    """However the row is cut: response by response, tree by tree, or some of both."""
    batch = collate(trees, "flat")
    length = batch.tokens.shape[1]
    rng = torch.Generator().manual_seed(length)
    query, key, value = (torch.randn(1, 2, length, 4, generator=rng, dtype=torch.float64) for _ in range(3))

    def plain(module, q, k, v, mask):
        causal = mask is None
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return out.transpose(1, 2), None

    near = batch.positions[:, :, None] - batch.positions[:, None, :] < (window or 10**6)
    expected = plain(None, query, key, value, (visibility(batch) & near)[:, None])[0]
    token = attention.WORTH_A_CALL.set(worth)
    mask = attention_mask(batch, Config(window))
    attention.WORTH_A_CALL.reset(token)
    found = by_tree(plain)(None, query, key, value, mask)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_copied_mask_fails_and_is_not_ignored() -> None:
    """A model that rebuilds its mask loses the pieces: it must not attend to everything in silence."""
    batch = collate([Tree((5, 6), ((7, 8), (9,))), Tree((5,), ((7,), (8,)))], "flat")
    mask = attention_mask(batch, Config())
    assert isinstance(mask, torch.Tensor)
    query = torch.randn(1, 2, batch.tokens.shape[1], 4)

    def plain(module, q, k, v, mask):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask), None

    with pytest.raises(RuntimeError):
        by_tree(plain)(None, query, query, query, mask.clone())


def test_pieces_go_with_their_batch() -> None:
    batch = collate([Tree((5, 6), ((7, 8), (9,))), Tree((5,), ((7,), (8,)))], "flat")
    before = len(attention._PIECES)
    mask = attention_mask(batch, Config())
    assert len(attention._PIECES) == before + 1
    del mask
    gc.collect()
    assert len(attention._PIECES) == before


def test_a_padded_row_is_masked_as_a_whole() -> None:
    batch = collate([Tree((5, 6), ((7, 8), (9,)))], "flat")
    padded = replace(batch, segment=torch.cat([batch.segment, torch.full((1, 1), -1)], dim=1))
    mask = attention_mask(padded, Config())
    assert isinstance(mask, torch.Tensor)
    assert mask.shape[-1] == padded.segment.shape[1]
