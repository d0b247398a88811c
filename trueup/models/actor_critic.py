"""A policy with a value head of its own, for PPO."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trueup.models.forward import head_of, hidden_states
from trueup.ops.logprobs import TokenScores, linear_token_logps
from trueup.types import TokenTrees


@dataclass(frozen=True)
class ActorCriticOutput:
    """Per response token ``[N]``: the policy's scores and the value of the state the token was chosen in."""

    scores: TokenScores
    values: Tensor


class ActorCritic(nn.Module):
    """Policy and critic in one module, so that one optimiser and one checkpoint hold both.

    The value head reads hidden states, not logits, and starts at zero: an untrained critic then predicts the mean of
    whitened rewards. With ``separate`` the critic has a backbone of its own (a copy of the policy's), so value
    regression cannot pull the language model; otherwise the two share one and ``vf_coef`` matters more.
    """

    def __init__(self, policy: Any, separate: bool = True) -> None:
        super().__init__()
        self.policy = policy
        self.critic = copy.deepcopy(policy.base_model) if separate else None
        head = head_of(policy)
        self.value_head = nn.Linear(head.weight.shape[1], 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, trees: TokenTrees, temperature: float = 1.0) -> ActorCriticOutput:
        """Score the response tokens and value their states."""
        hidden = hidden_states(self.policy, trees)[trees.source]
        scores = linear_token_logps(hidden, head_of(self.policy, temperature), trees.target)
        seen = hidden if self.critic is None else hidden_states(self.critic, trees)[trees.source]
        return ActorCriticOutput(scores, self._value(seen))

    def value(self, trees: TokenTrees) -> Tensor:
        """Value the state in which each response token was chosen, ``[N]``, without scoring tokens."""
        backbone = self.policy if self.critic is None else self.critic
        return self._value(hidden_states(backbone, trees)[trees.source])

    def _value(self, hidden: Tensor) -> Tensor:
        return self.value_head(hidden).squeeze(-1).to(torch.float32)
