"""A sum of losses with WPO's weights and BCO's running mean, end to end, against a plain forward in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from step_cases import CASES, causal, data, recorded_step, trees
from torch import Tensor

from trueup.models.forward import frozen_scorer
from trueup.train.reference import live

BETA, DELTA = 0.3, 0.5


def scored(model: Any, prompt: tuple[int, ...], response: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Summed log π of a response, and the sum of log Σ_v π(v)² over its states, by transformers alone."""
    ids = torch.tensor([[*prompt, *response]])
    logps = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(dim=-1)
    states = logps[len(prompt) - 1 : len(prompt) - 1 + len(response)]
    total = states.gather(1, torch.tensor(response)[:, None]).sum()
    return total, (states.exp() ** 2).sum(dim=1).log().sum()


def loss_of_pair(policy: Any, reference: Any, tree: Any) -> Tensor:
    """MPO (0.8 DPO, 0.2 BCO, 1 likelihood) times WPO's weight of the pair."""
    ratios, weight, likelihood = [], 1.0, None
    for response in tree.responses:
        total, agreement = scored(policy, tree.prompt, response)
        weight *= float(((total - agreement) / len(response)).exp().detach())
        ratios.append(total - scored(reference, tree.prompt, response)[0].detach())
        likelihood = -total / len(response) if likelihood is None else likelihood
    chosen, rejected = (BETA * ratio for ratio in ratios)
    dpo = -torch.log(torch.sigmoid(chosen - rejected))
    bco = -torch.log(torch.sigmoid(chosen - DELTA)) - torch.log(torch.sigmoid(DELTA - rejected))
    return weight * (0.8 * dpo + 0.2 * bco + likelihood)


def test_a_weighted_sum_is_the_papers() -> None:
    policy, reference = causal(torch.float64, seed=0), causal(torch.float64, seed=1)
    expected = torch.stack([loss_of_pair(policy, reference, tree) for tree in trees(2)]).mean()
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(expected, list(policy.parameters()))])
    source = data(2, 60, live(frozen_scorer(reference)))
    objective = CASES["mixture"].objective(torch.float64)
    metrics, found = recorded_step(policy, objective, list(source.draw(policy, 0).batches))
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-10)
    assert metrics["delta"] == pytest.approx(DELTA)
    assert float((found - gradient).norm() / gradient.norm()) < 1e-9
    parts = 0.8 * metrics["loss/sigmoid"] + 0.2 * metrics["loss/bco_pair"] + metrics["loss/sft"]
    assert parts == pytest.approx(metrics["loss"])
