"""Log-ratios between policy and reference, and the implicit rewards that other divergences make of them.

With u = π/π_ref, maximising reward minus β · D_f(π, π_ref) gives the implicit reward β · f'(u), up to a term in the
prompt alone. f = u log u (the reverse KL divergence) is what DPO uses. Wang et al. 2023, arXiv 2309.16240, Table 1.

Every f' is shifted by a constant so that f'(1) = 0: the reward is zero where policy and reference agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from trueup.errors import UserError, nearest
from trueup.ops.exponential import tangent_expm1
from trueup.types import PairLogps


def reference_logps(pairs: PairLogps) -> tuple[Tensor, Tensor]:
    """Return log π_ref of the chosen and of the rejected responses, each ``[B]``, or say that they are missing."""
    if pairs.ref_chosen is None or pairs.ref_rejected is None:
        raise UserError(
            "this loss compares with a reference, and PairLogps.ref_chosen or ref_rejected is missing: "
            "compute the reference log-probabilities, or choose a loss that needs none (simpo, orpo, cpo, sft)"
        )
    return pairs.ref_chosen, pairs.ref_rejected


def log_ratios(pairs: PairLogps) -> tuple[Tensor, Tensor]:
    """Return log π - log π_ref of the chosen and of the rejected responses, each ``[B]``, nats."""
    ref_chosen, ref_rejected = reference_logps(pairs)
    return pairs.chosen - ref_chosen, pairs.rejected - ref_rejected


def reverse_kl(log_ratio: Tensor) -> Tensor:
    """f(u) = u log u: log u. The policy avoids what the reference would not write."""
    return log_ratio


def forward_kl(log_ratio: Tensor) -> Tensor:
    """f(u) = -log u: 1 - 1/u. The policy must cover what the reference writes; bounded above by 1."""
    return -tangent_expm1(-log_ratio)


def js(log_ratio: Tensor) -> Tensor:
    """Jensen-Shannon, f(u) = u log u - (u + 1) log((u + 1)/2): log(2u/(1 + u)); bounded above by log 2."""
    return math.log(2.0) + F.logsigmoid(log_ratio)


def alpha(log_ratio: Tensor, *, alpha: float = 0.5) -> Tensor:
    """Alpha divergence: (1 - u^(-α))/α, between the reverse (α → 0) and the forward (α → 1) KL divergence.

    The paper's α. TRL's ``f_alpha_divergence_coef`` is 1 - α.
    """
    if not 0.0 < alpha < 1.0:
        raise UserError(f"alpha is {alpha}: it must lie between 0 (the divergence reverse_kl) and 1 (forward_kl)")
    return -tangent_expm1(-alpha * log_ratio) / alpha


DIVERGENCES: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"reverse_kl": reverse_kl, "forward_kl": forward_kl, "js": js, "alpha": alpha}
)
"""Name → f' as a function of the log-ratio."""


def with_divergence(pairs: PairLogps, name: str, **options: float) -> PairLogps:
    """Return pairs whose log-ratios are f'(u), so that a loss on the margin becomes its f-divergence variant.

    Only losses whose catalog entry says ``divergences`` may be given the result: in the others the unknown term in
    the prompt does not cancel.

    Args:
        pairs: with reference log-probabilities.
        name: a key of ``DIVERGENCES``.
        options: ``alpha`` for the divergence of that name.
    """
    if name not in DIVERGENCES:
        raise UserError(
            f"no divergence is called '{name}'{nearest(name, DIVERGENCES)}; known: {', '.join(DIVERGENCES)}"
        )
    if set(options) - ({"alpha"} if name == "alpha" else set()):
        raise UserError(f"divergence '{name}' has no option {', '.join(sorted(options))}: leave it out")
    chosen, rejected = (DIVERGENCES[name](ratio, **options) for ratio in log_ratios(pairs))
    zero = torch.zeros_like(chosen)
    return replace(pairs, chosen=chosen, rejected=rejected, ref_chosen=zero, ref_rejected=zero)
