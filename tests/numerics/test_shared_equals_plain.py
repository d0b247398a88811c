"""The whole point of token trees: the same numbers as a plain transformers forward, at less cost."""

from __future__ import annotations

import pytest
import torch
from architectures import CONFIGS, build
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.data.trees import Layout, Tree, collate
from trueup.models.forward import token_scores

IDS = st.integers(3, 60)
RESPONSE = st.lists(IDS, min_size=1, max_size=14).map(tuple)
TREES = st.lists(
    st.builds(
        Tree, st.lists(IDS, min_size=1, max_size=16).map(tuple), st.lists(RESPONSE, min_size=1, max_size=4).map(tuple)
    ),
    min_size=1,
    max_size=5,
)
MODELS = {name: build(name) for name in CONFIGS}


def by_transformers(model, trees: list[Tree]) -> torch.Tensor:
    """Repeat the prompt, one response at a time, full logits, library shift: no code of ours."""
    out = []
    for tree in trees:
        for response in tree.responses:
            ids = torch.tensor([tree.prompt + response])
            log_p = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
            picked = log_p.gather(1, ids[0, 1:, None])[:, 0]
            out.append(picked[len(tree.prompt) - 1 :])
    return torch.cat(out)


@pytest.mark.parametrize(
    ("layout", "packing"), [("flat", True), ("shared", True), ("shared", False), ("plain", True), ("plain", False)]
)
@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=8, deadline=None)
@given(trees=TREES)
def test_token_logps_equal_transformers(name: str, layout: Layout, packing: bool, trees: list[Tree]) -> None:
    model = MODELS[name]
    with torch.no_grad():
        found = token_scores(model, collate(trees, layout, packing)).logps
        expected = by_transformers(model, trees)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["flat", "shared"])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_equal_transformers(name: str, layout: Layout) -> None:
    torch.manual_seed(1)
    trees = [
        Tree(
            tuple(torch.randint(3, 61, (n,)).tolist()), tuple(tuple(torch.randint(3, 61, (m,)).tolist()) for m in sizes)
        )
        for n, sizes in [(13, (3, 11)), (2, (1, 9)), (7, (5, 5, 5, 12))]
    ]
    model = MODELS[name]
    parameters = [p for p in model.parameters() if p.requires_grad]
    weights = torch.linspace(-1, 1, sum(len(r) for t in trees for r in t.responses))
    expected = torch.autograd.grad((by_transformers(model, trees) * weights).sum(), parameters)
    found = torch.autograd.grad((token_scores(model, collate(trees, layout)).logps * weights).sum(), parameters)
    total = torch.cat([g.flatten() for g in expected])
    difference = torch.cat([g.flatten() for g in found]) - total
    assert difference.norm() / total.norm() < 1e-5


def test_a_sibling_branch_changes_nothing() -> None:
    model, prompt, response = MODELS["llama"], (5, 6, 7), (8, 9, 10)
    with torch.no_grad():
        alone = token_scores(model, collate([Tree(prompt, (response,))])).logps
        for sibling in ((11,), (60,) * 20):
            both = token_scores(model, collate([Tree(prompt, (sibling, response))])).logps
            torch.testing.assert_close(both[-3:], alone, rtol=1e-5, atol=1e-6)


def test_garbage_in_padding_changes_nothing() -> None:
    batch = collate([Tree((5, 6), ((7, 8),)), Tree((5,) * 9, ((6,), (7,) * 5))], packing=False)
    assert bool((batch.segment < 0).any())
    noisy = batch.tokens.clone()
    noisy[batch.segment < 0] = 42
    with torch.no_grad():
        clean = token_scores(MODELS["llama"], batch).logps
        dirty = token_scores(MODELS["llama"], type(batch)(**{**batch.__dict__, "tokens": noisy})).logps
    assert torch.equal(clean, dirty)
