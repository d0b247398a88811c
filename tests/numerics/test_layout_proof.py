"""`layout: auto` trusts sharing where it holds and steps aside where it does not."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from architectures import CONFIGS, IDS, build
from test_shared_equals_plain import by_transformers

from trueup.data.batching import Batching
from trueup.data.trees import Tree, collate
from trueup.models import attention
from trueup.models.attention import takes_flat
from trueup.models.forward import token_scores
from trueup.preflight.layout import prove_layout

TREES = [Tree((5, 6, 7, 8), ((9, 10, 2), (11, 12, 13, 2))), Tree((5, 9), ((14, 2), (15, 16, 2)))]
BATCHING = Batching("shared", 512, torch.device("cpu"))


@pytest.mark.parametrize("name", CONFIGS)
def test_masked_attention_is_trusted(name: str) -> None:
    model = build(name)
    proof = prove_layout(model, TREES, BATCHING)
    assert proof.layout == ("flat" if takes_flat(model.config) else "shared"), proof.message


UNSHARED = {
    "bloom": lambda: hf.BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4, **IDS),
    "mamba": lambda: hf.MambaConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, state_size=8, **IDS),
}
"""Models that cannot share a prompt: ALiBi biases follow the row index, a state-space mixer has no mask."""


@pytest.mark.parametrize("name", UNSHARED)
def test_a_model_that_cannot_share_gets_the_plain_layout_and_its_right_numbers(name: str) -> None:
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(UNSHARED[name]()).eval()
    proof = prove_layout(model, TREES, BATCHING)
    assert proof.layout == "plain" and "plain" in proof.message
    with torch.no_grad():
        found = token_scores(model, collate(TREES, "plain", packing=False)).logps
        torch.testing.assert_close(found, by_transformers(model, TREES), rtol=1e-5, atol=1e-5)


def test_a_model_that_breaks_the_mask_is_found_out() -> None:
    """A backbone that ignores the mask computes something else in the shared layout, without any error."""
    model = build("llama")
    forward = model.model.forward
    model.model.forward = lambda **inputs: forward(**{**inputs, "attention_mask": None})
    proof = prove_layout(model, TREES, BATCHING)
    assert proof.layout == "plain"
    assert proof.value_difference is not None and proof.value_difference > 1e-3


@pytest.mark.parametrize("trees", [TREES, [Tree((5, 6, 7, 8, 9), ())] * 3], ids=["pairs", "prompts"])
def test_attention_in_pieces_is_proved_although_short_trees_are_taken_whole(
    monkeypatch: pytest.MonkeyPatch, trees: list[Tree]
) -> None:
    """Groups of long responses are attended to response by response: what is wrong there only must show."""
    right = attention._mask_of

    def sees_ahead(parts, laid, window):
        mask = right(parts, laid, window)
        return torch.ones_like(mask) if len(parts) == 2 else mask

    monkeypatch.setattr(attention, "_mask_of", sees_ahead)
    assert prove_layout(build("llama"), trees, BATCHING).layout == "shared"
