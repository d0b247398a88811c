"""Seeds are functions of their names, fingerprints of every bit."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trueup.runtime.fingerprint import of_file, of_weights
from trueup.runtime.seeding import derive, generator, python_random, seed_globally

STREAM = st.tuples(st.integers(0, 50), st.sampled_from(["order", "rollout", "mini"]), st.integers(0, 50))


@given(st.lists(STREAM, min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_a_stream_does_not_depend_on_what_was_drawn_before(streams: list[tuple], rng: random.Random) -> None:
    first = {stream: torch.rand(3, generator=generator(*stream)) for stream in streams}
    again = list(streams)
    rng.shuffle(again)
    for stream in again:
        assert torch.equal(first[stream], torch.rand(3, generator=generator(*stream)))


@settings(max_examples=30)
@given(st.lists(STREAM, min_size=2, max_size=30, unique=True))
def test_different_streams_are_different(streams: list[tuple]) -> None:
    assert len({derive(*stream) for stream in streams}) == len(streams)
    assert all(0 <= derive(*stream) < 2**63 for stream in streams)


def test_streams_do_not_correlate_with_their_neighbours() -> None:
    """A seed and the next step's must not give shifted copies of one sequence."""
    draws = torch.stack([torch.randn(4000, generator=generator(0, "rollout", step)) for step in range(8)])
    assert (torch.corrcoef(draws) - torch.eye(8)).abs().max() < 0.08


def test_streams_leave_the_global_generators_alone() -> None:
    torch_before, python_before = torch.get_rng_state(), random.getstate()
    torch.rand(4, generator=generator(3, "rollout", 1))
    python_random(3, "label").random()
    assert torch.equal(torch.get_rng_state(), torch_before) and random.getstate() == python_before


def test_the_global_seed_is_a_stream_too() -> None:
    seed_globally(1, "step", 4)
    first = torch.rand(3)
    seed_globally(1, "step", 5)
    other = torch.rand(3)
    seed_globally(1, "step", 4)
    assert torch.equal(first, torch.rand(3)) and not torch.equal(first, other)


def test_seeds_are_the_same_on_every_machine_and_version() -> None:
    """Written down once: a change would silently give every published seed another run."""
    assert derive(0, "rollout", 3) == int.from_bytes(bytes.fromhex(SHA_OF_0_ROLLOUT_3)[:8], "big") >> 1
    assert python_random(7, "x").random() == python_random(7, "x").random()


SHA_OF_0_ROLLOUT_3 = "53a156af5b64fd7185f482ef6aec3f1b9c417841b0f9233cf1cf0af6eca8a244"


def build() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.BatchNorm1d(3))
    model.register_buffer("nothing", torch.zeros(0, 3))
    model.register_buffer("narrow", torch.zeros(2, dtype=torch.bfloat16))
    return model


def test_a_fingerprint_changes_with_any_single_number() -> None:
    """Every element of every parameter and buffer (whole numbers and scalars too), by the smallest step there is."""
    model = build()
    before = of_weights(model)
    seen = {before}
    for tensor in model.state_dict().values():
        flat = tensor.view(-1)
        for place in range(flat.numel()):
            old = flat[place].clone()
            up = torch.tensor(torch.inf, dtype=old.dtype) if old.is_floating_point() else None
            flat[place] = old + 1 if up is None else torch.nextafter(old, up)
            seen.add(of_weights(model))
            flat[place] = old
    assert len(seen) == 1 + sum(t.numel() for t in model.state_dict().values())
    assert of_weights(model) == before == of_weights(build())


@pytest.mark.parametrize("change", ["dtype", "shape", "name"])
def test_a_fingerprint_sees_more_than_bytes(change: str) -> None:
    def holder(name: str, tensor: torch.Tensor) -> nn.Module:
        module = nn.Module()
        module.register_buffer(name, tensor)
        return module

    zeros = torch.zeros(2, 4)
    other = {
        "dtype": holder("w", zeros.to(torch.float64)[:1]),
        "shape": holder("w", zeros.T),
        "name": holder("v", zeros),
    }[change]
    assert of_weights(holder("w", zeros)) != of_weights(other)


def test_a_fingerprint_does_not_depend_on_memory_layout_or_mode() -> None:
    model = build()
    before = of_weights(model)
    model.eval().requires_grad_(False)
    model[1].weight = nn.Parameter(model[1].weight.detach().T.contiguous().T)
    assert of_weights(model) == before


def test_a_file_is_its_bytes(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    (tmp_path / "b").write_bytes(b"x" * 99 + b"y")
    assert of_file(tmp_path / "a") != of_file(str(tmp_path / "b"))
    assert of_file(tmp_path / "a") == of_file(str(tmp_path / "a"))
