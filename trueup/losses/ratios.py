"""Ratios of the policy to the one that sampled: of a token, of a response on average, of a response as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trueup.ops.exponential import tangent_exp


def token_ratio(logps: Tensor, old_logps: Tensor, branch: Tensor, num_branches: int) -> Tensor:
    """Return π/π_old of each token ``[N]``, with gradient; it grows with log π. Arguments as of ``sequence_ratio``."""
    return tangent_exp(logps - old_logps)


def sequence_ratio(logps: Tensor, old_logps: Tensor, branch: Tensor, num_branches: int) -> Tensor:
    """Return GSPO's ratio (π(y) / π_old(y))^(1/|y|) of each token's response, ``[N]``, with gradient.

    The geometric mean of the token ratios; all tokens of a response share it, and so its gradient reaches each of them
    with weight 1/|y|. It grows with log π. For use in ``clipped_ratio``. Zheng et al. 2025, arXiv 2507.18071, Eq. 7.

    Args:
        logps: float ``[N]``, nats, with gradient.
        old_logps: float ``[N]``.
        branch: i64 ``[N]``, the response of each token, in 0..num_branches-1.
        num_branches: K; responses without tokens are allowed.
    """
    count = torch.bincount(branch, minlength=num_branches)
    return tangent_exp(_summed(logps - old_logps, branch, num_branches) / count.clamp(min=1))[branch]


def product_ratio(logps: Tensor, old_logps: Tensor, branch: Tensor, num_branches: int) -> Tensor:
    """Return π(y) / π_old(y) of each token's response, ``[N]``, with gradient: the product of its token ratios.

    What importance sampling of whole responses asks for; its spread grows with the length. All tokens of a response
    share it, so only the mean over a response's tokens has the gradient of the response's ratio. It grows with log π.
    RLOO in TRL. Arguments as of ``sequence_ratio``.
    """
    return tangent_exp(_summed(logps - old_logps, branch, num_branches))[branch]


def _summed(values: Tensor, branch: Tensor, num_branches: int) -> Tensor:
    return values.new_zeros(num_branches).index_add(0, branch, values)


RATIOS: Mapping[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "token": token_ratio,
    "sequence": sequence_ratio,
    "product": product_ratio,
}
"""What is called ρ, by name."""
