"""Sampling: what is drawn, with which probability it was drawn, and when it stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from trueup.data.trees import Tree, collate
from trueup.models import adapters
from trueup.models.forward import token_scores
from trueup.models.generate import Sample, sample
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
EXACT = build("llama", torch.float64)


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


def test_a_model_with_adapters_is_sampled_with_them() -> None:
    plain = build("llama")
    plain.name_or_path = "base"
    model = adapters.attach(plain, "base", rank=2)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight.data, std=0.5, generator=generator())
    groups = sampled(model, 4, Decoding(max_new_tokens=8))
    found = torch.cat([s.logps for group in groups for s in group])
    torch.testing.assert_close(found, scored(model, groups, 1.0), rtol=0, atol=1e-4)
    with model.disable_adapter():
        assert not torch.allclose(found, scored(model, groups, 1.0), atol=1e-2)


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


@pytest.mark.parametrize("max_rows", [1, 2, 4, 7, 1000])
def test_how_responses_are_batched_changes_none_of_them(max_rows: int) -> None:
    """In float64 rounding cannot move a draw; more draws and a higher cap only add to what was there."""
    decoding = Decoding(max_new_tokens=16)
    whole = tokens(sampled(EXACT, 3, decoding))
    assert len({response for group in whole for response in group}) > 10
    assert tokens(sampled(EXACT, 3, decoding, max_rows=max_rows)) == whole
    more = tokens(sampled(EXACT, 5, decoding, max_rows=max_rows))
    assert [group[:3] for group in more] == whole
    longer = tokens(sampled(EXACT, 3, Decoding(max_new_tokens=40), max_rows=max_rows))
    assert [[response[:16] for response in group] for group in longer] == whole
    fewer = sample(EXACT, PROMPTS[:2], 3, decoding, STOPS, generator(), max_rows=max_rows)
    assert tokens(fewer) == whole[:2]


@pytest.mark.parametrize("max_rows", [1, 4, 1000])
def test_answers_come_in_the_order_of_the_prompts(max_rows: int) -> None:
    decoding = Decoding(temperature=0, max_new_tokens=16)
    backwards = sample(LLAMA, PROMPTS[::-1], 2, decoding, STOPS, generator(), max_rows=max_rows)
    assert tokens(backwards)[::-1] == tokens(sampled(LLAMA, 2, decoding))


@pytest.mark.parametrize(("draws", "max_rows"), [(10, 3), (3, 7), (4, 4)])
def test_no_more_rows_are_in_flight_than_allowed(draws: int, max_rows: int) -> None:
    rows = computed(LLAMA, lambda: sampled(LLAMA, draws, Decoding(max_new_tokens=6), max_rows=max_rows))
    assert max(n for n, _ in rows) == max_rows // draws * draws or max_rows


def test_two_samplings_with_one_generator_differ() -> None:
    rng = generator()
    first, second = (sample(LLAMA, PROMPTS, 3, Decoding(max_new_tokens=8), STOPS, rng) for _ in range(2))
    assert tokens(first) != tokens(second)


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


def computed(model: Any, work: Callable[[], Any]) -> list[tuple[int, int]]:
    """Rows and columns of each forward pass."""
    shapes: list[tuple[int, int]] = []
    hook = model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    work()
    hook.remove()
    return shapes


def test_nothing_is_computed_for_a_response_that_has_ended() -> None:
    groups: list[list[Sample]] = []
    shapes = computed(LLAMA, lambda: groups.extend(sampled(LLAMA, 4, Decoding(max_new_tokens=100))))
    lengths = [len(s.tokens) for group in groups for s in group]
    assert max(lengths) < 100
    steps = [sum(n > t for n in lengths) for t in range(1, max(lengths))]
    assert shapes[-len(steps) :] == [(rows, 1) for rows in steps]
    prefills = shapes[: -len(steps)]
    assert sum(rows for rows, _ in prefills) == len(PROMPTS), "a prompt is computed once for all its draws"
    assert sum(rows * columns for rows, columns in prefills) <= 1.125 * sum(map(len, PROMPTS))


def test_no_prompts_give_no_samples() -> None:
    assert sample(LLAMA, [], 3, Decoding(), STOPS, generator()) == []
