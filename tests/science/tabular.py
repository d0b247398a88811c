"""A world so small that every pair of responses can be listed as often as it occurs: expectations without sampling.

Two prompts, two letters and an end, at most two tokens. The policy is a table of logits behind the interface of a
transformers model, in float64, so the real objective runs on it. The policy that sampled has probabilities in quarters:
among 256 pairs of responses to a prompt each pair occurs exactly as often as it is likely.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from laboratory import make_step
from torch import Tensor, nn

from trueup.data.batching import Batching
from trueup.data.trees import Tree
from trueup.models.forward import scorer
from trueup.train.experience import AssignCredit, Credit, Experience
from trueup.train.lessons import RolloutBatch
from trueup.train.protocols import Objective

END, CAP, PROMPTS, TOKENS = 0, 2, 2, 3
STATES = PROMPTS * (1 + TOKENS)
RESPONSES = [(END,), *itertools.product((1, 2), range(TOKENS))]
LENGTH = torch.tensor([len(response) for response in RESPONSES])
MASK = torch.arange(CAP) < LENGTH[:, None]
"""``[7, CAP]``: the tokens that a response has."""

BATCHING = Batching("plain", 10**9, torch.device("cpu"))
REWARDS = torch.tensor([[0.3, 2.0, -1.0, 0.7, 1.1, -0.4, 0.0], [1.0, -2.0, 0.4, 0.9, -0.3, 0.2, 1.7]]).double()
"""Of each response to each prompt ``[PROMPTS, 7]``."""

_QUARTERS = torch.tensor(
    [[1, 2, 1], [2, 1, 1], [1, 1, 1], [1, 1, 2], [2, 1, 1], [1, 1, 1], [2, 1, 1], [1, 2, 1]], dtype=torch.float64
)
SAMPLER = _QUARTERS.log().T.contiguous()
"""Logits of the policy that sampled ``[TOKENS, STATES]``; no response goes on from its end, so two states are idle."""


def noisy(size: float, seed: int) -> Tensor:
    """The sampler's logits, moved."""
    noise = torch.randn(SAMPLER.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return SAMPLER + size * noise


REFERENCE = noisy(0.8, 1)


def state_after(prompt: int, first: int | None) -> int:
    """Number of the state in which a token is chosen: after the prompt, or after its response's first token."""
    return prompt if first is None else PROMPTS + prompt * TOKENS + first


class _States(nn.Module):
    """A backbone whose hidden states are the numbers of the states, one hot."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace()

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        prompt = input_ids[:, :1] - TOKENS
        number = torch.zeros_like(input_ids)
        number[:, :1] = prompt
        number[:, 1:2] = PROMPTS + prompt * TOKENS + input_ids[:, 1:2]
        return SimpleNamespace(last_hidden_state=torch.nn.functional.one_hot(number, STATES).double())


class Table(nn.Module):
    """A policy that has a logit for every token in every state."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.base_model, self.config = _States(), SimpleNamespace()
        self.head = nn.Linear(STATES, TOKENS, bias=False)
        self.head.weight = nn.Parameter(logits.clone())

    def get_output_embeddings(self) -> nn.Linear:
        return self.head


def token_logps(logits: Tensor) -> Tensor:
    """Log-probabilities ``[PROMPTS, 7, CAP]`` of every response's tokens, 0 where there is none; with gradient."""
    logps = logits.log_softmax(dim=0)
    rows = [
        [
            logps[y[0], state_after(prompt, None)],
            logps[y[1], state_after(prompt, y[0])] if len(y) > 1 else logps.new_zeros(()),
        ]
        for prompt in range(PROMPTS)
        for y in RESPONSES
    ]
    return torch.stack([torch.stack(row) for row in rows]).view(PROMPTS, len(RESPONSES), CAP)


def probabilities(logits: Tensor) -> Tensor:
    """Of every response ``[PROMPTS, 7]``."""
    return token_logps(logits).sum(dim=2).exp()


def with_gradient(value: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """The gradient of a function of the logits, flat."""
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(value(leaf), leaf)[0].flatten()


def population(sampler: Tensor = SAMPLER, rewards: Tensor = REWARDS) -> Experience:
    """Every pair of responses as often as the sampler draws it, 256 to a prompt."""
    times = (16 * probabilities(sampler)).round().long()
    assert torch.allclose(times.double() / 16, probabilities(sampler)), "probabilities that are not in sixteenths"
    trees, paid = [], []
    for prompt in range(PROMPTS):
        listed = torch.arange(len(RESPONSES)).repeat_interleave(times[prompt]).tolist()
        for pair in itertools.product(listed, repeat=2):
            trees.append(Tree((TOKENS + prompt,), tuple(RESPONSES[k] for k in pair)))
            paid += [rewards[prompt, k] for k in pair]
    count = torch.tensor([len(response) for tree in trees for response in tree.responses])
    everything = BATCHING.collate(trees)
    old, reference = (scorer(Table(logits))(everything) for logits in (sampler, REFERENCE))
    return Experience(
        trees=trees,
        group=torch.arange(len(trees)).repeat_interleave(2),
        branch=torch.arange(len(count)).repeat_interleave(count),
        old_logps=old,
        ref_logps=reference,
        scores=torch.stack(paid),
        parts={},
        rewards=torch.stack(paid),
        ended=torch.ones(len(count), dtype=torch.bool),
    )


Mistake = Callable[[RolloutBatch, nn.Module], RolloutBatch]


def expected_update(
    model: Any, objective: Objective, assign: AssignCredit, experience: Experience, mistakes: Sequence[Mistake] = ()
) -> Tensor:
    """The direction of the first step over a whole population: minus the expected gradient of the loss, flat."""
    credit: Credit = assign(model, experience)
    batch = RolloutBatch(
        trees=BATCHING.collate(experience.trees),
        old_logps=experience.old_logps,
        ref_logps=experience.ref_logps,
        advantages=credit.advantages,
        returns=credit.returns,
        old_values=credit.values,
        fresh=False,
    )
    for mistake in mistakes:
        batch = mistake(batch, getattr(model, "policy", model))
    return make_step(model, objective, [batch])[1]
