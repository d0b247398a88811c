"""The reward model's objective: margins go with their pairs however a step is cut, centring fixes the origin."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from step_cases import LENGTHS, data, scorer
from torch import nn

from trueup.losses.ranking import bradley_terry
from trueup.models.scoring import response_scores
from trueup.train.objectives.reward import RewardObjective
from trueup.train.protocols import Tally
from trueup.train.sources import DataBatch, DataSource

MARGINS = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5])


def source(max_tokens: int) -> DataSource:
    return replace(data(2, max_tokens), margins=MARGINS)


def difference(model: nn.Module, of: DataSource) -> np.ndarray:
    """Chosen less rejected score of every pair, in the order of the data set, one forward pass each."""
    scores = [response_scores(model, of.batching.collate([tree])).detach() for tree in of.trees]
    return np.array([float(pair[0] - pair[1]) for pair in scores])


@pytest.mark.parametrize("max_tokens", [1, 60, 10**6])
def test_a_margin_is_what_its_own_pair_must_lead_by(max_tokens: int) -> None:
    model, pairs = scorer(torch.float64), source(max_tokens)
    expected = np.log1p(np.exp(-(difference(model, pairs) - MARGINS))).sum()
    tallies = [RewardObjective()(model, batch) for batch in pairs.draw(model, 0).batches]
    found = sum(float(total(tally).detach()) for tally in tallies)
    assert found == pytest.approx(expected, rel=1e-5)
    shuffled = np.log1p(np.exp(-(difference(model, pairs) - MARGINS[::-1]))).sum()
    assert abs(found - shuffled) > 0.01, "margins of other pairs could not be told apart"


def test_held_out_pairs_have_their_margins_too() -> None:
    pairs = source(60)
    margins = torch.cat([batch.margin for batch in pairs.sweep() if batch.margin is not None])
    assert sorted(margins.tolist()) == MARGINS.tolist()
    assert all(batch.margin is None for batch in data(2, 60).sweep())


def test_accuracy_and_margin_of_the_journal_are_of_the_scores_alone() -> None:
    """A lead that is smaller than the margin asked for is right all the same."""
    model = scorer(torch.float64)
    with_margins, without = (
        [RewardObjective()(model, batch) for batch in of.draw(model, 0).batches]
        for of in (source(10**6), data(2, 10**6))
    )
    assert [tally.metrics for tally in with_margins] == [tally.metrics for tally in without]


def test_margins_do_not_move_equal_gradients() -> None:
    """Closed form: the gradient with respect to the lead is -σ(m - lead)."""
    lead = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64, requires_grad=True)
    margin = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    bradley_terry(lead, torch.zeros_like(lead), margin).sum().backward()
    expected = [-1 / (1 + math.exp(x - m)) for x, m in zip([0.3, -0.2, 1.0], [0.0, 1.0, 2.0], strict=True)]
    assert lead.grad is not None and lead.grad.tolist() == pytest.approx(expected)


def total(tally: Tally) -> torch.Tensor:
    return tally.terms["ranking"].total


class Shifted(nn.Module):
    """A scorer and a number that is added to all its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(3.0))

    def scores(self, batch: DataBatch) -> torch.Tensor:
        """Fixed scores, apart by more than nothing, and the shift."""
        return torch.linspace(-1.0, 2.0, 2 * len(LENGTHS)) + self.shift


@pytest.mark.parametrize("centring", [0.0, 0.01])
def test_centring_alone_says_where_zero_is(centring: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Shifted()
    monkeypatch.setattr("trueup.train.objectives.reward.response_scores", lambda m, trees: m.scores(trees))
    (batch,) = data(2, 10**6).draw(model, 0).batches
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        total(RewardObjective(centring)(model, batch)).backward()
        optimizer.step()
    mean = float(model.scores(batch).mean().detach())
    assert mean == pytest.approx(0.0 if centring else 3.5, abs=1e-3)
