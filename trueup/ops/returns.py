"""From rewards to returns: generalised advantage estimation, rewards to go, the price of length, whitening.

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


def to_go(rewards: Tensor, penalty: Tensor, branch: Tensor) -> Tensor:
    """Return of every token ``[N]``: its response's reward less the penalties from the token to the end.

    Args:
        rewards: ``[K]``, one reward a response, paid at its end.
        penalty: ``[N]``, taken off at each token.
        branch: i64 ``[N]``, the response of each token, non-decreasing.
    """
    padded, mask = pad_by_branch(penalty, branch, len(rewards))
    return rewards[branch] - padded.flip(1).cumsum(1).flip(1)[mask]


def overlong_penalty(length: Tensor, cap: int, buffer: int) -> Tensor:
    """DAPO's soft overlong punishment ``[K]``: 0 up to ``cap - buffer`` tokens, then a line down to -1 at the cap.

    Yu et al. 2025, arXiv:2503.14476, Eq. 13, where a response longer than the cap has -1; here the cap is where
    sampling stops, so a response that was cut off has it.

    Args:
        length: i64 ``[K]``, response tokens.
        cap: the most tokens that a response can have.
        buffer: tokens before the cap in which the penalty grows; from 1 to ``cap``.
    """
    return ((cap - buffer - length) / buffer).clamp(-1.0, 0.0)


def whiten(values: Tensor, keep_mean: bool = False) -> Tensor:
    """Scale to standard deviation 1 and mean 0 (or the old mean), as PPO implementations do with advantages."""
    mean = values.mean()
    scaled = (values - mean) / (values.std(correction=0) + 1e-8)
    return scaled + mean if keep_mean else scaled
