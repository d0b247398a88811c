"""Divergence estimates between policy and reference from the policy's own samples.

With r = log(pi_ref / pi) at a sampled token (J. Schulman, "Approximating KL Divergence", 2020):
k1 = -r is unbiased and signed; k2 = r^2 / 2 is biased and low in variance; k3 = exp(r) - 1 - r is unbiased and never
negative. All hold for samples of pi only: on other text they are log-ratios, not divergences.

As values they estimate one thing, as losses they do not. With samples of pi held fixed, the expected gradient of k1 is
zero, that of k2 is the gradient of KL(pi || pi_ref) and that of k3 the gradient of KL(pi_ref || pi), each at the
states that were visited; multiplied by the ratio pi / pi_old, k1 and k3 have that of KL(pi || pi_ref), and k2 that of
its own mean. tests/science holds this against exact gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from trueup.ops.exponential import tangent_expm1


def k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Log pi - log pi_ref: unbiased, may be negative for a single sample. Shape kept, nats."""
    return logps - ref_logps


def k2(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """(log pi - log pi_ref)^2 / 2: biased; its gradient under sampling from pi is that of the KL itself."""
    return 0.5 * (logps - ref_logps).square()


def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """pi_ref / pi - 1 - log(pi_ref / pi): unbiased and non-negative. Shape kept, nats.

    Where the reference is over e^40 times likelier than the policy, the exponential goes on along its tangent: past 88
    nats it would be infinite in float32, and one such token would end a run. Below 40 nats nothing is changed.
    """
    log_ratio = ref_logps - logps
    return tangent_expm1(log_ratio) - log_ratio


ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
