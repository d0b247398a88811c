"""What a method makes of a rollout before it is trained on: responses with their credit, or pairs of responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trueup.data.trees import Tree
from trueup.train.experience import AssignCredit, Credit, Experience, without
from trueup.train.sources import DataBatch
from trueup.types import Bundle, TokenTrees


@dataclass(frozen=True)
class RolloutBatch(Bundle):
    """A micro-batch of sampled responses; per-token tensors are ``[N]`` in branch order.

    Attributes:
        trees: prompts with their sampled responses.
        old_logps: log-probabilities the tokens were sampled with.
        ref_logps: log-probabilities under the reference.
        advantages: credit of each token.
        returns, old_values: targets and starting points of the critic; None without one.
        fresh: no update has been made since these were sampled, so sampler and scorer must agree.
    """

    trees: TokenTrees
    old_logps: Tensor
    ref_logps: Tensor
    advantages: Tensor
    returns: Tensor | None
    old_values: Tensor | None
    fresh: bool


@dataclass(frozen=True)
class Lesson:
    """What is trained on of a rollout.

    Attributes:
        trees: prompts with the responses that are trained on.
        tensors: name -> ``[N]``, one number for each of their response tokens.
        metrics: what was measured while it was made.
    """

    trees: Sequence[Tree]
    tensors: Mapping[str, Tensor]
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Use:
    """How a method uses rollouts.

    Attributes:
        prepare: (model, experience) -> what is trained on; the experience may be empty.
        batch: (laid-out trees of a lesson, its tensors for their tokens, no update was made since) -> what the
            method's objective takes.
        credit: how ``prepare`` assigns credit; None where it picks pairs.
    """

    prepare: Callable[[nn.Module, Experience], Lesson]
    batch: Callable[[TokenTrees, Mapping[str, Tensor], bool], Any]
    credit: AssignCredit | None = None


def by_credit(assign: AssignCredit, mask_truncated: bool = False) -> Use:
    """Every response is trained on, with the credit of its tokens (PPO, GRPO and its relatives).

    Args:
        assign: credit assignment.
        mask_truncated: responses that were cut off are compared with the others of their group, and not trained on.
    """

    def prepare(model: nn.Module, lived: Experience) -> Lesson:
        credit = assign(model, lived) if lived.trees else Credit(torch.zeros(0))
        optional = {"advantages": credit.advantages, "returns": credit.returns, "old_values": credit.values}
        tensors = {"old_logps": lived.old_logps, "ref_logps": lived.ref_logps}
        tensors |= {name: value for name, value in optional.items() if value is not None}
        if not mask_truncated:
            return Lesson(lived.trees, tensors, credit.metrics)
        tokens = lived.ended[lived.branch]
        metrics = {**credit.metrics, "rollout/unused_truncated": int((~lived.ended).sum())}
        kept = {name: value[tokens] for name, value in tensors.items()}
        return Lesson(without(lived.trees, ~lived.ended), kept, metrics)

    def batch(trees: TokenTrees, tensors: Mapping[str, Tensor], fresh: bool) -> RolloutBatch:
        return RolloutBatch(trees=trees, fresh=fresh, **{"returns": None, "old_values": None, **tensors})

    return Use(prepare, batch, assign)


def by_pairs() -> Use:
    """Of each group the response that is paid most is chosen and the one that is paid least rejected (online DPO).

    The groups must be of one size, and each must have a difference: between equal responses the order in which they
    were sampled would become a preference. Among several best, or several worst, the first sampled is taken: they are
    paid the same, and the order of samples means nothing.
    """

    def prepare(model: nn.Module, lived: Experience) -> Lesson:
        if not lived.trees:
            return Lesson([], {"ref_logps": torch.zeros(0)})
        paid = lived.rewards.view(len(lived.trees), -1)
        sides = torch.stack([paid.argmax(dim=1), paid.argmin(dim=1)], dim=1)
        trees = [
            Tree(tree.prompt, (tree.responses[best], tree.responses[worst]))
            for tree, (best, worst) in zip(lived.trees, sides.tolist(), strict=True)
        ]
        of_response = lived.ref_logps.split(torch.bincount(lived.branch).tolist())
        picked = (sides + torch.arange(len(trees))[:, None] * paid.shape[1]).flatten().tolist()
        gap = float((paid.amax(dim=1) - paid.amin(dim=1)).mean())
        return Lesson(trees, {"ref_logps": torch.cat([of_response[i] for i in picked])}, {"pairs/reward_gap": gap})

    return Use(prepare, lambda trees, tensors, fresh: DataBatch(trees, tensors["ref_logps"]))
