"""The loss of a step by the papers' formulas, one response at a time, on plain forward passes of transformers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from step_cases import CASES, causal, drawn, recorded_step, trees
from torch import Tensor

from trueup.data.trees import Tree
from trueup.train.lessons import RolloutBatch

ALL_AT_ONCE = 1_000_000


def logps_of(model: Any, tree: Tree, response: tuple[int, ...]) -> Tensor:
    """Log-probability of each token of a response."""
    ids = torch.tensor([tree.prompt + response])
    log_p = model(input_ids=ids).logits[0, :-1].double().log_softmax(dim=1)
    return log_p.gather(1, ids[0, 1:, None])[-len(response) :, 0]


def values_of(model: Any, tree: Tree, response: tuple[int, ...]) -> Tensor:
    """The critic's value of the state before each token of a response."""
    hidden = model.critic(input_ids=torch.tensor([tree.prompt + response])).last_hidden_state
    return model.value_head(hidden)[0, -len(response) - 1 : -1, 0].double()


def responses_of(batch: RolloutBatch) -> list[tuple[Tree, tuple[int, ...], slice]]:
    """Each response with its prompt and its place among the flat tokens, read back from the batch's own rows."""
    tokens, segment = batch.trees.tokens.flatten(), batch.trees.segment.flatten()
    out, start = [], 0
    for count, last in zip(torch.bincount(batch.trees.branch).tolist(), batch.trees.last.tolist(), strict=True):
        prompt = tokens[segment == batch.trees.prompt_of[segment[last]]]
        response = tuple(batch.trees.target[start : start + count].tolist())
        out.append((Tree(tuple(prompt.tolist()), ()), response, slice(start, start + count)))
        start += count
    return out


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


@torch.no_grad()
def sft(model: Any, _: Any) -> float:
    """Mean negative log-likelihood of all response tokens."""
    every = torch.cat([logps_of(model, tree, tree.responses[0]) for tree in trees(1)])
    return -float(every.mean())


@torch.no_grad()
def preference(model: Any, _: Any) -> float:
    """Rafailov et al. 2023, equation 7, with beta 0.3."""
    anchor, total = causal(torch.float64, seed=1), 0.0
    for tree in trees(2):
        chosen, rejected = (
            float(logps_of(model, tree, r).sum() - logps_of(anchor, tree, r).sum()) for r in tree.responses
        )
        total += math.log1p(math.exp(-0.3 * (chosen - rejected)))
    return total / len(trees(2))


@torch.no_grad()
def reward(model: Any, _: Any) -> float:
    """Bradley-Terry on the scores of transformers' own classification head, and 0.1 (sum of both)^2."""
    total = 0.0
    for tree in trees(2):
        chosen, rejected = (float(model(input_ids=torch.tensor([tree.prompt + r])).logits) for r in tree.responses)
        total += math.log1p(math.exp(rejected - chosen)) + 0.1 * (chosen + rejected) ** 2
    return total / len(trees(2))


@torch.no_grad()
def grpo(model: Any, batch: RolloutBatch) -> float:
    """Shao et al. 2024, equation 3: means over the tokens of a response, then over responses; KL weight 0.1."""
    total, responses = 0.0, responses_of(batch)
    for tree, response, place in responses:
        logps = logps_of(model, tree, response)
        ratio = (logps - batch.old_logps[place]).exp()
        away = (batch.ref_logps[place] - logps).double()
        gain = clipped(ratio, batch.advantages[place], 0.2, 0.28) - 0.1 * (away.exp() - away - 1)
        total -= float(gain.mean())
    return total / len(responses)


@torch.no_grad()
def ppo(model: Any, batch: RolloutBatch) -> float:
    """Schulman et al. 2017, equations 7 and 9, with the clipped value loss of its code; value weight 0.5."""
    assert batch.returns is not None and batch.old_values is not None
    total = 0.0
    for tree, response, place in responses_of(batch):
        ratio = (logps_of(model.policy, tree, response) - batch.old_logps[place]).exp()
        values, old, target = values_of(model, tree, response), batch.old_values[place], batch.returns[place]
        held = old + (values - old).clamp(-0.2, 0.2)
        error = torch.maximum((values - target) ** 2, (held - target) ** 2) / 2
        total += float((-clipped(ratio, batch.advantages[place], 0.2, 0.2) + 0.5 * error).sum())
    return total / len(batch.old_logps)


@pytest.mark.parametrize("formula", [sft, preference, reward, grpo, ppo], ids=lambda f: f.__name__)
def test_the_loss_is_the_papers(formula: Any) -> None:
    case = CASES[formula.__name__]
    model, batches = drawn(case, torch.float64, ALL_AT_ONCE)
    expected = formula(model.eval(), batches[0])
    metrics, _ = recorded_step(model, case.objective(torch.float64), batches)
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)
    assert abs(expected) > 0.05
