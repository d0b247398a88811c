"""Advantages without a critic: what a response is compared with, and what the difference is divided by.

Values of tokens are flat ``[N]`` in branch order (see ``TokenTrees``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trueup.ops.returns import to_go, whiten


@dataclass(frozen=True)
class Paid:
    """What K responses of N tokens were paid, before any of it is compared.

    Attributes:
        rewards: ``[K]``, one reward a response.
        penalty: ``[N]``, what is taken off at each token: a KL coefficient times k1, or zeros.
        group: i64 ``[K]``, the prompt a response answers.
        branch: i64 ``[N]``, the response of each token, non-decreasing.
    """

    rewards: Tensor
    penalty: Tensor
    group: Tensor
    branch: Tensor

    @property
    def total(self) -> Tensor:
        """``[K]``, the reward less the penalty of the whole response."""
        return self.rewards - torch.zeros_like(self.rewards).index_add(0, self.branch, self.penalty)


def less_group_mean(paid: Paid) -> Tensor:
    """Credit ``[N]`` relative to the mean of the response's group (Shao et al. 2024, arXiv:2402.03300, section 4.1.2).

    Every token has the credit of its response. A group whose totals are all equal has exactly 0.
    """
    size, summed = _group_moments(paid)
    return torch.where(_flat_groups(paid), 0.0, paid.total - (summed / size)[paid.group])[paid.branch]


def less_others_mean(paid: Paid) -> Tensor:
    """Credit ``[N]`` relative to the mean of the *other* responses of the group: RLOO's baseline.

    Ahmadian et al. 2024, arXiv:2402.14740. Independent of the response itself, so that the gradient is
    unbiased; it is G/(G - 1) times ``less_group_mean``. A response without others has 0.
    """
    size, _ = _group_moments(paid)
    others = (size - 1).clamp(min=1)
    return less_group_mean(paid) * (size / others)[paid.group][paid.branch]


BASELINES: Mapping[str, Callable[[Paid], Tensor]] = {
    "group": less_group_mean,
    "leave_one_out": less_others_mean,
    "none": lambda paid: to_go(paid.rewards, paid.penalty, paid.branch),
}
"""What a response is compared with, by name; ``none`` is each token's reward to go."""


def group_spread(paid: Paid) -> Tensor:
    """Standard deviation (n - 1) of the totals in each response's group, ``[K]``; 0 for a group of one."""
    size, summed = _group_moments(paid)
    squares = (paid.total - (summed / size)[paid.group]).square()
    return (torch.zeros_like(size).index_add(0, paid.group, squares) / (size - 1).clamp(min=1)).sqrt()[paid.group]


SCALES: Mapping[str, Callable[[Tensor, Paid], Tensor]] = {
    "group": lambda credit, paid: credit / (group_spread(paid) + 1e-4)[paid.branch],
    "batch": lambda credit, paid: credit / (_spread(paid.total) + 1e-4),
    "whiten": lambda credit, paid: whiten(credit),
    "none": lambda credit, paid: credit,
}
"""What credit is divided by, by name: the spread of the group's totals (GRPO), that of all totals of the rollout (Liu
et al. 2025, arXiv:2508.08221), that of the credit of all tokens, whose mean is taken off too (REINFORCE++, Hu et al.
2025, arXiv:2501.03262), nothing (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783). The 1e-4 is TRL's and keeps tiny
spreads from exploding."""


def advantages(paid: Paid, baseline: str, scale: str) -> Tensor:
    """Advantages of all response tokens ``[N]``: credit by a key of ``BASELINES``, scaled by one of ``SCALES``."""
    return SCALES[scale](BASELINES[baseline](paid), paid)


def _group_moments(paid: Paid) -> tuple[Tensor, Tensor]:
    """Number of responses and sum of totals of every group."""
    size = torch.bincount(paid.group).to(paid.rewards.dtype)
    return size, torch.zeros_like(size).index_add(0, paid.group, paid.total)


def _flat_groups(paid: Paid) -> Tensor:
    """Bool ``[K]``: the totals of the response's group are equal."""
    # A spread below rounding is no signal: dividing by it would turn noise into advantages of order one.
    largest = paid.total.new_zeros(int(paid.group.max()) + 1).scatter_reduce(0, paid.group, paid.total.abs(), "amax")
    return group_spread(paid) <= 1e-6 * largest.clamp(min=1e-6)[paid.group]


def _spread(values: Tensor) -> Tensor:
    return values.std() if len(values) > 1 else values.new_zeros(())
