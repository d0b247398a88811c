"""KTO and BCO end to end: data order, reference point, loss and gradient against a plain forward in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from step_cases import CASES, LENGTHS, batching, causal, judged, recorded_step, trees
from torch import Tensor

from trueup.data.trees import Tree
from trueup.losses.catalog import CATALOG
from trueup.models.forward import frozen_scorer
from trueup.train.companions import RunningMean
from trueup.train.objectives.unpaired import UnpairedObjective
from trueup.train.protocols import StepReport
from trueup.train.reference import live
from trueup.train.unpaired import UnpairedSource, mismatched_kl

WANTED = np.arange(len(LENGTHS)) % 3 > 0


def log_probability(model: Any, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """Summed log-probability of a response, by transformers alone, one sequence at a time."""
    ids = torch.tensor([[*prompt, *response]])
    logps = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(dim=-1)
    return sum(logps[len(prompt) - 1 + t, token] for t, token in enumerate(response))  # type: ignore[return-value]


def expected(policy: Any, reference: Any, beta: float, weights: tuple[float, float]) -> tuple[float, Tensor, float]:
    """KTO's mean loss over the data, its gradient, and z, written from the paper's equations 7 and 8."""
    ratios, foreign = [], []
    for tree in trees(2):
        own, other = tree.responses
        ratio = log_probability(policy, tree.prompt, own) - log_probability(reference, tree.prompt, own).detach()
        ratios.append(ratio)
        with torch.no_grad():
            foreign.append(log_probability(policy, tree.prompt, other) - log_probability(reference, tree.prompt, other))
    z = max(0.0, float(torch.stack(foreign).mean()))
    losses = [
        weights[0] * (1 - torch.sigmoid(beta * (ratio - z)))
        if wanted
        else weights[1] * (1 - torch.sigmoid(beta * (z - ratio)))
        for ratio, wanted in zip(ratios, WANTED, strict=True)
    ]
    loss = torch.stack(losses).mean()
    gradient = torch.autograd.grad(loss, list(policy.parameters()))
    return float(loss.detach()), torch.cat([g.flatten() for g in gradient]), z


@pytest.mark.parametrize("max_tokens", [1, 60, 1_000_000])
def test_a_step_of_kto_is_the_paper_s(max_tokens: int) -> None:
    policy, reference = causal(torch.float64, seed=0), causal(torch.float64, seed=1)
    loss, gradient, z = expected(policy, reference, 0.05, (1.5, 0.8))
    assert z > 1.0, "a reference point of 0 would show nothing"
    source = judged(max_tokens, live(frozen_scorer(reference)))
    batches = list(source.draw(policy, 0).batches)
    settings = {"beta": 0.05, "desirable_weight": 1.5, "undesirable_weight": 0.8}
    metrics, found = recorded_step(policy, UnpairedObjective(CATALOG["kto"], settings), batches)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-12)
    assert metrics["kl"] == pytest.approx(z, rel=1e-12)
    assert float((found - gradient).norm() / gradient.norm()) < 1e-10


def test_the_reference_point_is_never_negative() -> None:
    """Where the policy is below the reference on foreign responses, the paper's estimate is cut off at 0."""
    policy, reference = causal(torch.float64, seed=0), causal(torch.float64, seed=1)
    foreign = [Tree(tree.prompt, tree.responses[1:]) for tree in trees(2)]
    points = [
        mismatched_kl(foreign, live(frozen_scorer(b)), batching(60))(a, range(len(foreign)))
        for a, b in ((policy, reference), (reference, policy))
    ]
    assert points[0] > 1.0 and points[1] == 0.0


def test_rewards_are_told_apart_by_label() -> None:
    policy, reference = causal(torch.float64, seed=0), causal(torch.float64, seed=1)
    source = judged(60, live(frozen_scorer(reference)))
    metrics, _ = recorded_step(policy, CASES["kto"].objective(torch.float64), list(source.draw(policy, 0).batches))
    model = causal(torch.float64, seed=0)
    with torch.no_grad():
        logps = [float(log_probability(model, tree.prompt, tree.responses[0])) for tree in trees(1)]
        anchors = [float(log_probability(reference, tree.prompt, tree.responses[0])) for tree in trees(1)]
    rewards = 0.3 * (np.array(logps) - np.array(anchors))
    for name, rows in {"chosen": WANTED, "rejected": ~WANTED}.items():
        assert metrics[f"rewards/{name}"] == pytest.approx(rewards[rows].mean(), rel=1e-10)
        assert metrics[f"logps/{name}"] == pytest.approx(np.array(logps)[rows].mean(), rel=1e-10)
    assert metrics["rewards/mean"] == pytest.approx(rewards.mean(), rel=1e-10)


def test_bco_is_measured_from_the_mean_reward_of_earlier_steps() -> None:
    """δ of a step is the mean of β r over all responses of the steps before it, and 0 in the first."""
    policy, reference = causal(torch.float64, seed=0), live(frozen_scorer(causal(torch.float64, seed=1)))
    mean = RunningMean("rewards/mean")
    source = UnpairedSource(trees(1), WANTED, 8, 0, batching(60), reference, lambda model, rows: mean.value)
    objective = UnpairedObjective(CATALOG["bco"], {"beta": 0.05})
    rewards = []
    for step in range(3):
        metrics, _ = recorded_step(policy, objective, list(source.draw(policy, step).batches))
        assert metrics["delta"] == pytest.approx(np.mean(rewards) if rewards else 0.0, abs=1e-12)
        mean(StepReport(step + 1, metrics))
        rewards.append(metrics["rewards/mean"])
    assert len({round(reward, 6) for reward in rewards}) == 3, "the policy did not move"
