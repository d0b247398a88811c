"""Sampling: what is drawn, with which probability it was drawn, and when it stops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from trueup.data.trees import Tree, collate
from trueup.models.forward import token_scores
from trueup.models.generate import Sample, draw, sample
from trueup.types import Decoding

VOCABULARY = 31
STOPS = frozenset({2, 7, 11})
PROMPTS = [(5, 6, 8, 9, 10, 12, 3), (4,), (13, 14, 15), (9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9), (20, 21)]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
COMMON = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
ROTARY = {**SHAPE, **COMMON, "num_key_value_heads": 2, "max_position_embeddings": 128}
CONFIGS: dict[str, Any] = {
    "llama": hf.LlamaConfig(**ROTARY),
    "qwen3": hf.Qwen3Config(**ROTARY, head_dim=8),
    "gpt2": hf.GPT2Config(**COMMON, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "gemma2": hf.Gemma2Config(**ROTARY, head_dim=8, sliding_window=6, query_pre_attn_scalar=8),
    "gemma3": hf.Gemma3TextConfig(**ROTARY, head_dim=8, sliding_window=6, query_pre_attn_scalar=8),
}


def build(name: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(CONFIGS[name]).to(dtype)


MODELS = {name: build(name) for name in CONFIGS}
LLAMA = MODELS["llama"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sampled(model: Any, draws: int, decoding: Decoding, seed: int = 0, **options: int) -> list[list[Sample]]:
    return sample(model, PROMPTS, draws, decoding, STOPS, generator(seed), **options)


def tokens(groups: list[list[Sample]]) -> list[list[tuple[int, ...]]]:
    return [[s.tokens for s in group] for group in groups]


@torch.no_grad()
def scored(model: Any, groups: list[list[Sample]], temperature: float) -> Tensor:
    """What the scorer of the losses says about sampled tokens, siblings sharing their prompt."""
    trees = [Tree(prompt, tuple(s.tokens for s in group)) for prompt, group in zip(PROMPTS, groups, strict=True)]
    was_training = model.training
    model.eval()
    logps = token_scores(model, collate(trees), temperature).logps
    model.train(was_training)
    return logps


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", CONFIGS)
def test_sampler_and_scorer_agree_on_every_token(name: str, temperature: float) -> None:
    model = MODELS[name]
    groups = sampled(model, 16, Decoding(temperature=temperature, max_new_tokens=20))
    found = torch.cat([s.logps for group in groups for s in group])
    lengths = [len(s.tokens) for group in groups for s in group]
    assert min(lengths) < 5 and max(lengths) == 20, "short and truncated responses are needed"
    torch.testing.assert_close(found, scored(model, groups, temperature), rtol=0, atol=1e-4)


def test_dropout_is_off_while_sampling_and_back_on_after() -> None:
    model = MODELS["gpt2"].train()
    groups = sampled(model, 4, Decoding(max_new_tokens=8))
    assert model.training
    torch.testing.assert_close(
        torch.cat([s.logps for group in groups for s in group]), scored(model, groups, 1.0), rtol=0, atol=1e-4
    )
    model.eval()
    sampled(model, 1, Decoding(max_new_tokens=2))
    assert not model.training


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_give_float32_log_probabilities(dtype: torch.dtype) -> None:
    groups = sampled(build("llama", dtype), 2, Decoding(max_new_tokens=5))
    for response in (s for group in groups for s in group):
        assert response.logps.dtype == torch.float32
        assert response.logps.shape == (len(response.tokens),)
        assert (response.logps <= 0).all()


def test_samples_follow_the_distribution_they_are_said_to_follow() -> None:
    with torch.no_grad():
        logits = LLAMA(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    groups = sample(LLAMA, PROMPTS[:1], 20_000, Decoding(temperature=1.5, max_new_tokens=1), STOPS, generator())
    found = torch.bincount(torch.tensor([s.tokens[0] for s in groups[0]]), minlength=VOCABULARY) / 20_000
    expected = (logits / 1.5).softmax(dim=0)
    error = (expected * (1 - expected) / 20_000).sqrt()
    assert ((found - expected).abs() < 4.5 * error + 1e-4).all()


LOGITS = st.lists(st.integers(-120, 120), min_size=2, max_size=12, unique=True).map(lambda z: [n / 20 for n in z])


def kept(logits: list[float], decoding: Decoding) -> dict[int, float]:
    """Tokens that 300 draws return, each with the probability it is said to have."""
    rows = torch.tensor([logits]).repeat(300, 1)
    picked, logps = draw(rows, decoding, generator())
    return dict(zip(picked.tolist(), logps.exp().tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(logits=LOGITS, k=st.integers(1, 14), temperature=st.floats(0.3, 3))
def test_top_k_draws_from_the_k_most_probable_renormalised(logits: list[float], k: int, temperature: float) -> None:
    allowed = sorted(range(len(logits)), key=lambda i: -logits[i])[:k]
    weight = (torch.tensor(logits, dtype=torch.float64) / temperature).exp()
    for token, probability in kept(logits, Decoding(temperature=temperature, top_k=k)).items():
        assert token in allowed
        assert probability == pytest.approx(float(weight[token] / weight[allowed].sum()), rel=1e-3, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(logits=LOGITS, top_p=st.floats(0.05, 0.99), temperature=st.floats(0.3, 3))
def test_top_p_draws_from_the_smallest_sufficient_set_renormalised(
    logits: list[float], top_p: float, temperature: float
) -> None:
    probabilities = (torch.tensor(logits, dtype=torch.float64) / temperature).softmax(dim=0)
    order = probabilities.argsort(descending=True).tolist()
    # A threshold within rounding of a boundary: either set is right.
    assume(all(abs(float(probabilities[order[:n]].sum()) - top_p) > 1e-5 for n in range(1, len(order))))
    allowed, mass = [], 0.0
    for token in order:
        if mass >= top_p:
            break
        allowed.append(token)
        mass += float(probabilities[token])
    found = kept(logits, Decoding(temperature=temperature, top_p=top_p))
    assert set(found) <= set(allowed)
    for token, probability in found.items():
        assert probability == pytest.approx(float(probabilities[token]) / mass, rel=1e-3, abs=1e-6)


def test_top_k_and_top_p_together_cut_first_and_then_take_the_nucleus() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().tolist()
    # Of the best three, renormalised to 4/9, 3/9, 2/9, the first two reach 0.7.
    found = kept(logits, Decoding(top_k=3, top_p=0.7))
    assert found == pytest.approx({0: 4 / 7, 1: 3 / 7}, rel=1e-4)


def test_the_cut_reaches_the_sampler() -> None:
    greedy = tokens(sampled(LLAMA, 1, Decoding(temperature=0, max_new_tokens=12)))
    for narrow in (Decoding(top_k=1, max_new_tokens=12), Decoding(top_p=1e-6, max_new_tokens=12)):
        groups = sampled(LLAMA, 1, narrow)
        assert tokens(groups) == greedy
        assert all(bool((s.logps == 0).all()) for group in groups for s in group)


def test_greedy_takes_the_most_probable_token_and_needs_no_luck() -> None:
    decoding = Decoding(temperature=0, max_new_tokens=15)
    groups = sampled(LLAMA, 2, decoding, seed=0)
    assert tokens(groups) == tokens(sampled(LLAMA, 2, decoding, seed=1))
    assert all(first.tokens == second.tokens for first, second in groups)
    trees = [Tree(prompt, (group[0].tokens,)) for prompt, group in zip(PROMPTS, groups, strict=True)]
    with torch.no_grad():
        assert bool(token_scores(LLAMA, collate(trees)).top1.all())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_batch_of_unequal_prompts_equals_one_at_a_time(name: str) -> None:
    decoding = Decoding(temperature=0, max_new_tokens=16)
    together = tokens(sampled(MODELS[name], 1, decoding))
    alone = [tokens(sample(MODELS[name], [p], 1, decoding, STOPS, generator()))[0] for p in PROMPTS]
    assert together == alone
    assert len(set(map(str, together))) == len(PROMPTS), "the prompts must not all lead to one answer"


@pytest.mark.parametrize("max_rows", [1, 4, 1000])
def test_answers_come_in_the_order_of_the_prompts_however_they_are_cut(max_rows: int) -> None:
    decoding = Decoding(temperature=0, max_new_tokens=16)
    assert tokens(sampled(LLAMA, 2, decoding, max_rows=max_rows)) == tokens(sampled(LLAMA, 2, decoding))
    backwards = sample(LLAMA, PROMPTS[::-1], 2, decoding, STOPS, generator(), max_rows=max_rows)
    assert tokens(backwards)[::-1] == tokens(sampled(LLAMA, 2, decoding))


def test_one_seed_gives_one_set_of_samples_and_another_gives_another() -> None:
    decoding = Decoding(max_new_tokens=10)
    first, again, other = (sampled(LLAMA, 3, decoding, seed=seed) for seed in (0, 0, 1))
    assert tokens(first) == tokens(again)
    for mine, theirs in zip(first, again, strict=True):
        assert all(torch.equal(a.logps, b.logps) for a, b in zip(mine, theirs, strict=True))
    assert tokens(first) != tokens(other)
    assert any(len({s.tokens for s in group}) > 1 for group in first), "draws of one prompt must differ"


def test_nothing_but_the_generator_is_a_source_of_randomness() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    sampled(LLAMA, 2, Decoding(max_new_tokens=4))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("cap", [1, 3, 20])
def test_a_response_stops_at_its_first_terminator_or_at_the_cap(cap: int) -> None:
    groups = sampled(LLAMA, 40, Decoding(max_new_tokens=cap))
    responses = [s for group in groups for s in group]
    for response in responses:
        assert 1 <= len(response.tokens) <= cap
        assert not STOPS & set(response.tokens[:-1])
        assert response.ended == (response.tokens[-1] in STOPS)
        assert response.ended or len(response.tokens) == cap
        assert len(response.logps) == len(response.tokens)
    assert {s.ended for s in responses} == {True, False}
    assert {s.tokens[-1] for s in responses if s.ended} == STOPS


def test_without_terminators_every_response_is_cut_at_the_cap() -> None:
    groups = sample(LLAMA, PROMPTS, 2, Decoding(max_new_tokens=6), frozenset(), generator())
    assert all(len(s.tokens) == 6 and not s.ended for group in groups for s in group)


def test_no_forward_pass_is_made_after_the_last_response_has_ended() -> None:
    rows: list[int] = []
    hook = LLAMA.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    groups = sampled(LLAMA, 4, Decoding(max_new_tokens=100))
    hook.remove()
    lengths = [len(s.tokens) for group in groups for s in group]
    assert max(lengths) < 100
    assert rows[0] == len(PROMPTS), "a prompt is computed once for all its draws"
    still_going = [sum(n > t for n in lengths) for t in range(1, max(lengths))]
    assert len(rows) == 1 + len(still_going)
    for computed, needed in zip(rows[1:], still_going, strict=True):
        assert needed <= computed <= 1.25 * needed, "hardly any row is computed for a response that has ended"


def test_no_prompts_give_no_samples() -> None:
    assert sample(LLAMA, [], 3, Decoding(), STOPS, generator()) == []
