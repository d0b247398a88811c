"""From rewards to advantages: generalised advantage estimation, group-relative advantages, whitening.

Values of tokens are flat ``[N]`` in branch order (see ``TokenTrees``); ``branch`` says which response a token is in.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pad_by_branch(values: Tensor, branch: Tensor, num_branches: int) -> tuple[Tensor, Tensor]:
    """Lay flat token values ``[N]`` out as ``[K, L]``; returns them with the bool mask of real entries."""
    count = torch.bincount(branch, minlength=num_branches)
    mask = torch.arange(int(count.max()) if len(count) else 0, device=values.device) < count[:, None]
    padded = values.new_zeros(mask.shape)
    padded[mask] = values
    return padded, mask


def gae(
    rewards: Tensor, values: Tensor, branch: Tensor, num_branches: int, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16) on every response.

    ``delta_t = r_t + gamma V_{t+1} - V_t`` and ``A_t = delta_t + gamma lam A_{t+1}``, where both V and A are 0 after
    the last token: a response is an episode of its own.

    Args:
        rewards: ``[N]``, the reward paid at each response token.
        values: ``[N]``, the value of the state in which each token was chosen.
        branch: i64 ``[N]``, the response of each token, non-decreasing.
        num_branches: K.
        gamma: discount per token.
        lam: 1 = Monte-Carlo returns, 0 = one-step temporal differences.

    Returns:
        ``(advantages [N], returns [N])`` with ``returns = advantages + values``, the target of the value head.
    """
    reward, mask = pad_by_branch(rewards, branch, num_branches)
    value, _ = pad_by_branch(values, branch, num_branches)
    advantage = torch.zeros_like(reward)
    following_value = following_advantage = reward.new_zeros(num_branches)
    for t in reversed(range(reward.shape[1])):
        delta = reward[:, t] + gamma * following_value - value[:, t]
        current = (delta + gamma * lam * following_advantage) * mask[:, t]
        advantage[:, t], following_advantage = current, current
        following_value = value[:, t] * mask[:, t]
    flat = advantage[mask]
    return flat, flat + values


def group_relative(rewards: Tensor, group: Tensor, scale: str) -> tuple[Tensor, Tensor]:
    """Advantages of responses relative to their group's mean (Shao et al. 2024, arXiv:2402.03300, section 4.1.2).

    Args:
        rewards: ``[K]``, one reward a response.
        group: i64 ``[K]``, the prompt a response answers.
        scale: ``group`` divides by the group's standard deviation (GRPO), ``batch`` by that of all centred rewards,
            ``none`` by nothing (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783).

    Returns:
        ``(advantages [K], group_std [K])``. A group whose rewards are all equal has advantages of exactly 0.
    """
    size = torch.bincount(group).to(rewards.dtype)
    centred = rewards - (torch.zeros_like(size).index_add(0, group, rewards) / size)[group]
    variance = torch.zeros_like(size).index_add(0, group, centred.square()) / (size - 1).clamp(min=1)
    group_std = variance.sqrt()[group]
    # A spread below rounding is no signal: dividing by it would turn noise into advantages of order one.
    largest = torch.zeros_like(size).scatter_reduce(0, group, rewards.abs(), "amax")[group]
    flat = group_std <= 1e-6 * largest.clamp(min=1e-6)
    divisor = _SCALES[scale](centred, group_std)
    return torch.where(flat, torch.zeros_like(centred), centred / divisor), group_std


_SCALES = {
    "group": lambda centred, group_std: group_std + 1e-4,
    "batch": lambda centred, group_std: centred.std() + 1e-4,
    "none": lambda centred, group_std: torch.ones_like(centred),
}
"""Divisors of ``group_relative``; the 1e-4 is TRL's and keeps tiny spreads from exploding."""


def whiten(values: Tensor, keep_mean: bool = False) -> Tensor:
    """Scale to standard deviation 1 and mean 0 (or the old mean), as PPO implementations do with advantages."""
    mean = values.mean()
    scaled = (values - mean) / (values.std(correction=0) + 1e-8)
    return scaled + mean if keep_mean else scaled
