"""Losses on single responses that were marked desirable or undesirable.

Both compare a response's log-ratio to the reference with a reference point that the caller estimates over a batch or
keeps as a running mean; no gradient flows through it. "Chosen gradient" is that of a desirable response.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trueup.losses.elementary import detached


def kto(
    logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    reference_point: Tensor | float,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """KTO: λ_D σ(-β (r - z)) for desirable responses, λ_U σ(β (r - z)) for undesirable ones, ``[B]``.

    Ethayarajh et al. 2024, arXiv 2402.01306, Eq. 7 and 8 (λ_y - v). With z = 0 and equal weights it is the unpaired
    form of APO-zero. At policy = reference and z = 0: λ/2. Chosen gradient: negative everywhere.

    Args:
        logps: float ``[B]``, summed policy log-probabilities, nats.
        ref_logps: float ``[B]``, the same under the reference.
        desirable: bool ``[B]``.
        reference_point: z, an estimate of KL(π, π_ref) in nats, not scaled by beta; the paper holds it at 0 or above.
        beta: risk aversion; how fast the value saturates, per nat.
        desirable_weight: λ_D. λ_D n_D / (λ_U n_U) is to lie between 1 and 4/3, n the numbers of examples.
        undesirable_weight: λ_U.
    """
    value = beta * (logps - ref_logps - detached(reference_point))
    return torch.where(desirable, desirable_weight * (-value).sigmoid(), undesirable_weight * value.sigmoid())


def bco(logps: Tensor, ref_logps: Tensor, desirable: Tensor, reference_point: Tensor | float, *, beta: float) -> Tensor:
    """BCO: -log σ(β r - δ) for desirable responses, -log σ(-(β r - δ)) for undesirable ones, ``[B]``.

    A binary classifier whose logit is the implicit reward. Jung et al. 2024, arXiv 2404.04656.
    At policy = reference and δ = 0: log 2. Chosen gradient: negative everywhere.

    Args:
        logps: float ``[B]``, summed policy log-probabilities, nats.
        ref_logps: float ``[B]``, the same under the reference.
        desirable: bool ``[B]``.
        reference_point: δ, the running mean of the implicit rewards of both kinds, scaled by beta.
        beta: scale of the implicit reward.
    """
    logit = beta * (logps - ref_logps) - detached(reference_point)
    return -F.logsigmoid(torch.where(desirable, logit, -logit))
