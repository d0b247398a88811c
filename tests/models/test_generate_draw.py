"""One draw: the right token for a uniform number, with the probability it really had, whatever rounding does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from trueup.errors import RunError
from trueup.models.draw import BLOCK, FIRST_LOOK, draw, uniforms
from trueup.types import Decoding

LOGITS = st.lists(st.integers(-120, 120), min_size=2, max_size=12, unique=True).map(lambda z: [n / 20 for n in z])
ALMOST_ONE = 1 - 2.0**-53
EVENLY = (torch.arange(300, dtype=torch.float64) + 0.5) / 300


def normal(vocabulary: int, seed: int = 0, spread: float = 2.0) -> Tensor:
    return torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


def stream(count: int) -> Tensor:
    return uniforms(0, [(0, 0)], count)[0]


def kept(logits: list[float], decoding: Decoding) -> dict[int, float]:
    """Tokens that 300 evenly spread numbers return, each with the probability it is said to have."""
    drawn = draw(torch.tensor([logits]).repeat(300, 1), decoding, EVENLY)
    return dict(zip(drawn.tokens.tolist(), drawn.logps.exp().tolist(), strict=True))


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


@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_a_nucleus_larger_than_the_first_look_is_found_whole(spread: float) -> None:
    logits = normal(4 * FIRST_LOOK, spread=spread)
    sharp = torch.where(torch.arange(len(logits)) == 5, 30.0, logits)
    probability = np.sort(logits.double().softmax(dim=0).numpy())[::-1]
    size = int(np.searchsorted(probability.cumsum(), 0.9)) + 1
    assert size > FIRST_LOOK
    drawn = draw(torch.stack([logits, sharp]), Decoding(top_p=0.9), torch.tensor([0.3, 0.3], dtype=torch.float64))
    assert float(drawn.full_logps[0] - drawn.logps[0]) == pytest.approx(np.log(probability[:size].sum()), abs=1e-5)
    assert drawn.tokens[1] == 5 and drawn.logps[1] == 0, "a row that needs one token is not disturbed by its neighbour"


@pytest.mark.parametrize("vocabulary", [2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5000])
def test_the_cumulative_distribution_is_inverted(vocabulary: int) -> None:
    logits, uniform = normal(vocabulary), stream(2000)
    exact = logits.double().softmax(dim=0).numpy().cumsum()
    sure = np.abs(exact[:, None] - uniform.numpy()[None]).min(axis=0) > 1e-6
    assert sure.mean() > 0.9
    found = draw(logits.expand(2000, -1), Decoding(), uniform).tokens.numpy()
    np.testing.assert_array_equal(found[sure], np.searchsorted(exact, uniform.numpy(), side="right")[sure])


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(top_k=50), Decoding(top_p=0.9), Decoding(temperature=0.5)])
@pytest.mark.parametrize("place", [0, 300, 999])
def test_a_token_without_probability_is_never_drawn(place: int, decoding: Decoding) -> None:
    """At the edges of [0, 1), where sums of floats fall short of 1, and with impossible tokens first and last."""
    logits = torch.full((1000,), -torch.inf)
    logits[place] = 3.0
    edges = torch.tensor([0.0, 2.0**-53, 0.5, ALMOST_ONE, 1.0], dtype=torch.float64)
    drawn = draw(logits.expand(5, -1), decoding, edges)
    assert drawn.tokens.tolist() == [place] * 5
    assert drawn.logps.tolist() == drawn.full_logps.tolist() == [0.0] * 5


@pytest.mark.parametrize("spread", [0.0, 3.0, 40.0])
def test_whatever_rounding_does_a_draw_has_positive_probability(spread: float) -> None:
    """Large vocabularies, where sums have errors larger than most probabilities; every second token is impossible."""
    logits = normal(50_000, spread=spread)
    logits[1::2] = -torch.inf
    uniform = torch.cat([stream(60), torch.tensor([0.0, ALMOST_ONE], dtype=torch.float64)])
    drawn = draw(logits.expand(len(uniform), -1), Decoding(), uniform)
    assert (drawn.tokens % 2 == 0).all() and drawn.logps.isfinite().all()


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(top_k=20), Decoding(top_p=0.8), Decoding(temperature=0.7)])
def test_tokens_come_as_often_as_their_log_probability_says(decoding: Decoding) -> None:
    logits, count = normal(700, seed=3), 20_000
    drawn = draw(logits.expand(count, -1), decoding, stream(count))
    found, index = torch.unique(drawn.tokens, return_inverse=True)
    said = torch.zeros(len(found), dtype=torch.float64).scatter(0, index, drawn.logps.exp().double())
    seen = torch.bincount(index) / count
    assert ((seen - said).abs() < 4.5 * (said / count).sqrt() + 2 / count).all()


@pytest.mark.parametrize("decoding", [Decoding(top_k=9), Decoding(temperature=0.6, top_p=0.7), Decoding(temperature=2)])
def test_the_full_log_probability_ignores_the_cut(decoding: Decoding) -> None:
    logits = normal(100).repeat(300, 1)
    drawn = draw(logits, decoding, EVENLY)
    expected = (logits / decoding.temperature).log_softmax(dim=1).gather(1, drawn.tokens[:, None]).squeeze(1)
    torch.testing.assert_close(drawn.full_logps, expected, rtol=0, atol=1e-5)
    cut = decoding.top_k > 0 or decoding.top_p < 1
    assert ((drawn.logps > drawn.full_logps + 0.05) == cut).all()


def test_the_most_probable_token_is_sure_and_its_full_log_probability_is_at_temperature_1() -> None:
    logits = normal(100)[None]
    drawn = draw(logits, Decoding(temperature=0), torch.tensor([0.9], dtype=torch.float64))
    assert drawn.tokens.item() == logits.argmax() and drawn.logps.item() == 0
    assert drawn.full_logps.item() == pytest.approx(logits.log_softmax(dim=1).max().item(), abs=1e-5)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_broken_logits_are_an_error_and_not_a_sample(broken: float) -> None:
    logits = normal(10).repeat(2, 1)
    logits[1, 4] = broken
    with pytest.raises(RunError, match="not finite"):
        draw(logits, Decoding(), torch.tensor([0.1, 0.1], dtype=torch.float64))


def test_luck_is_uniform_and_no_two_responses_share_it() -> None:
    streams = torch.cat([uniforms(seed, list(itertools.product(range(2), range(3))), 500) for seed in (0, 1)])
    everything = streams.flatten()
    assert len(everything.unique()) == len(everything)
    assert float(everything.min()) >= 0 and float(everything.max()) < 1
    assert stats.kstest(everything.numpy(), "uniform").pvalue > 0.01
    correlation = np.corrcoef(streams.numpy()) - np.eye(len(streams))
    assert np.abs(correlation).max() < 0.2


def test_luck_depends_on_the_response_and_not_on_those_beside_it_nor_on_the_cap() -> None:
    together = uniforms(7, [(3, 2), (0, 0), (3, 1)], 100)
    assert torch.equal(together[:1, :13], uniforms(7, [(3, 2)], 13))
    assert torch.equal(together[2:], uniforms(7, [(3, 1)], 100))
