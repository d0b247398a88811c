"""The sampler's log-probabilities are those of a plain transformers forward, for every family and way of batching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers as hf
from architectures import CONFIGS, IDS, KV, build
from torch import Tensor

from trueup.data.trees import Tree, collate
from trueup.errors import UserError
from trueup.models import key_values
from trueup.models.forward import token_scores
from trueup.models.generate import Sample, sample
from trueup.types import Decoding

STOPS = frozenset({2, 17, 40})
PROMPTS = [tuple(range(3, 3 + n)) for n in (13, 1, 6, 7, 20, 12, 2)]
Groups = list[list[Sample]]


def drawn(model: Any, decoding: Decoding, draws: int = 5, max_rows: int = 1000) -> Groups:
    return sample(model, PROMPTS, draws, decoding, STOPS, torch.Generator().manual_seed(0), max_rows)


def plain(model: Any, groups: Groups, temperature: float) -> Iterator[tuple[Sample, Tensor]]:
    """Each response with its next-token distributions, one response at a time, without any cache."""
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for response in group:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + response.tokens])).logits[0]
            yield response, (logits[len(prompt) - 1 : -1] / temperature).log_softmax(dim=1)


def at(log_p: Tensor, response: Sample) -> Tensor:
    return log_p.gather(1, torch.tensor(response.tokens)[:, None]).squeeze(1)


@pytest.mark.parametrize("max_rows", [1000, 12, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_sampled_log_probabilities_equal_a_plain_forward(
    name: str, max_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ragged prompts, groups larger than a batch, windows shorter than prompts, buffers that grow on the way."""
    monkeypatch.setattr(key_values, "ROOM", 3)
    model = build(name)
    groups = drawn(model, Decoding(temperature=0.7, max_new_tokens=24), max_rows=max_rows)
    lengths = [len(s.tokens) for group in groups for s in group]
    assert min(lengths) < 6 and max(lengths) == 24
    for response, log_p in plain(model, groups, 0.7):
        torch.testing.assert_close(response.logps, at(log_p, response), rtol=0, atol=1e-4)
    trees = [Tree(p, tuple(s.tokens for s in group)) for p, group in zip(PROMPTS, groups, strict=True)]
    with torch.no_grad():
        scored = token_scores(model, collate(trees, "flat"), 0.7).logps
    torch.testing.assert_close(torch.cat([s.logps for g in groups for s in g]), scored, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_cut_distribution_is_renormalised_and_the_whole_one_kept_beside_it(name: str) -> None:
    model, decoding = build(name), Decoding(temperature=1.3, top_k=12, top_p=0.8, max_new_tokens=12)
    for response, log_p in plain(model, groups := drawn(model, decoding), decoding.temperature):
        torch.testing.assert_close(response.full_logps, at(log_p, response), rtol=0, atol=1e-4)
        best = log_p.double().exp().sort(dim=1, descending=True).values[:, :12]
        before = best.cumsum(dim=1) - best
        mass = (best * (before < 0.8 * best.sum(dim=1, keepdim=True))).sum(dim=1)
        torch.testing.assert_close(response.logps, at(log_p, response) - mass.log().float(), rtol=0, atol=1e-4)
    assert any((s.logps > s.full_logps + 0.1).any() for group in groups for s in group)


def sparse() -> hf.PreTrainedConfig:
    """A model whose cache also holds the keys of an indexer; it attends to everything, so a plain forward agrees."""
    low_rank = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
    experts = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
    index = {"index_n_heads": 2, "index_head_dim": 16, "index_topk": 128, "head_dim": 8}
    heads = {**KV, "num_key_value_heads": 4}
    options: dict[str, Any] = {**heads, **IDS, **low_rank, **experts, **index, "first_k_dense_replace": 1}
    return hf.GlmMoeDsaConfig(**options)


OTHERS: dict[str, Callable[[], Any]] = {
    "bloom": lambda: hf.BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4),
    "gpt_neox": lambda: hf.GPTNeoXConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=61),
    "sparse attention": sparse,
}


def other(name: str) -> Any:
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(OTHERS[name]()).eval()


@pytest.mark.parametrize("name", OTHERS)
def test_models_that_share_no_tree_are_sampled_all_the_same(name: str) -> None:
    """Biases by distance, fused projections, and a cache that is left to the model itself."""
    model = other(name)
    for response, log_p in plain(model, drawn(model, Decoding(max_new_tokens=10)), 1.0):
        torch.testing.assert_close(response.logps, at(log_p, response), rtol=0, atol=1e-4)


@torch.no_grad()
def test_only_a_cache_of_keys_and_values_is_taken_over() -> None:
    ids = torch.tensor([[3, 4, 5]])
    taken = {}
    for name in OTHERS:
        cache = other(name).base_model(input_ids=ids, use_cache=True).past_key_values
        taken[name] = key_values.merged([cache], [torch.tensor([0, 0])]) is not None
    assert taken == {"bloom": True, "gpt_neox": True, "sparse attention": False}


def test_a_model_without_keys_and_values_is_refused() -> None:
    config = hf.MambaConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, state_size=8)
    with pytest.raises(UserError, match="running state"):
        drawn(hf.AutoModelForCausalLM.from_config(config), Decoding(max_new_tokens=4))


def test_what_was_in_memory_before_does_not_reach_a_response() -> None:
    """Prompts of unequal length leave columns that nobody writes; here fresh memory is full of NaN."""
    model = build("gemma2")
    expected = [s.tokens for group in drawn(model, Decoding(max_new_tokens=12)) for s in group]
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        found = drawn(model, Decoding(max_new_tokens=12))
    finally:
        torch.use_deterministic_algorithms(False)
    assert [s.tokens for group in found for s in group] == expected


def test_buffers_are_copied_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred steps from two columns on: each copy makes room for half as much again."""
    copies: list[int] = []
    wider = key_values._wider
    monkeypatch.setattr(key_values, "ROOM", 1)
    monkeypatch.setattr(key_values, "_wider", lambda filled, least: copies.append(least) or wider(filled, least))
    model = build("llama")
    sample(model, [(3, 4)], 1, Decoding(max_new_tokens=100), frozenset(), torch.Generator().manual_seed(0))
    per_buffer = len(copies) / (2 * model.config.num_hidden_layers)
    assert 5 < per_buffer < 12
