"""Preference losses on the margin h: how much more the policy prefers chosen to rejected than the reference does.

Notation: r_w and r_l are log π - log π_ref of the chosen and the rejected response, summed over tokens (nats);
h = r_w - r_l; |y| is a number of response tokens. Every function takes ``PairLogps`` of B pairs and returns the
unreduced loss ``[B]`` in the dtype it was given. "Chosen gradient" is the sign of the loss's derivative with respect
to the chosen log-probability: where it is negative, minimising raises that log-probability.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from trueup.errors import UserError
from trueup.losses.elementary import check_label_smoothing, per_token, smoothed_logistic
from trueup.losses.implicit import log_ratios
from trueup.types import PairLogps


def _margin(pairs: PairLogps) -> Tensor:
    chosen, rejected = log_ratios(pairs)
    return chosen - rejected


def _margin_per_token(pairs: PairLogps) -> Tensor:
    chosen, rejected = log_ratios(pairs)
    return per_token(chosen, pairs.chosen_count) - per_token(rejected, pairs.rejected_count)


def sigmoid(pairs: PairLogps, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """DPO: -log σ(β h); with label smoothing ε, conservative DPO: -(1 - ε) log σ(β h) - ε log σ(-β h).

    Rafailov et al. 2023, arXiv 2305.18290, Eq. 7; conservative DPO: Mitchell 2023.
    At policy = reference: log 2 for every β and ε. Chosen gradient: negative everywhere for ε = 0; for ε > 0 it turns
    positive once σ(β h) > 1 - ε.
    """
    return smoothed_logistic(beta * _margin(pairs), label_smoothing)


def robust(pairs: PairLogps, *, beta: float, label_smoothing: float = 0.1) -> Tensor:
    """Robust DPO: [-(1 - ε) log σ(β h) + ε log σ(-β h)] / (1 - 2ε).

    Its expectation over labels that are flipped with probability ε is the DPO loss of the true labels. It has no lower
    bound: for ε > 0 it falls without end as h grows. Chowdhury et al. 2024, arXiv 2403.00409.
    At policy = reference: log 2. Chosen gradient: negative everywhere.
    """
    check_label_smoothing(label_smoothing)
    margin = beta * _margin(pairs)
    observed, flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    return ((1.0 - label_smoothing) * observed - label_smoothing * flipped) / (1.0 - 2.0 * label_smoothing)


def ipo(pairs: PairLogps, *, beta: float) -> Tensor:
    """IPO on means over tokens: (r_w/|y_w| - r_l/|y_l| - 1/(2β))².

    Azar et al. 2023, arXiv 2310.12036, Eq. 17, where β is τ and the log-ratios are sums. The means are TRL's reading,
    which its maintainers report as confirmed by the authors: with sums the target gap 1/(2β) would be spread over
    more tokens in longer responses.
    At policy = reference: 1/(4β²). Chosen gradient: negative until the gap reaches its target, positive beyond.
    """
    return (_margin_per_token(pairs) - 0.5 / beta).square()


def hinge(pairs: PairLogps, *, beta: float) -> Tensor:
    """max(0, 1 - β h): no gradient once the margin exceeds 1.

    The rank calibration of SLiC-HF (Zhao et al. 2023, arXiv 2305.10425) on log-ratios to a reference, as in RSO
    (Liu et al. 2023, arXiv 2309.06657). At policy = reference: 1. Chosen gradient: negative or zero everywhere.
    """
    return F.relu(1.0 - beta * _margin(pairs))


def exo_pair(pairs: PairLogps, *, beta: float, label_smoothing: float = 1e-3) -> Tensor:
    """EXO with two responses: KL(q ‖ p), q = (σ(β h), σ(-β h)), p = (1 - ε, ε); ε must be positive.

    The KL divergence is taken in the direction opposite to conservative DPO's.
    Ji et al. 2024, arXiv 2402.00856, Eq. 16. At policy = reference: -log 2 - ½ log(ε(1 - ε)).
    Chosen gradient: negative until σ(β h) reaches 1 - ε, then positive.
    """
    check_label_smoothing(label_smoothing)
    if label_smoothing == 0.0:
        raise UserError("label_smoothing is 0: exo_pair divides by it; the paper uses 0.001")
    margin = beta * _margin(pairs)
    chosen_wins = margin.sigmoid() * (F.logsigmoid(margin) - math.log1p(-label_smoothing))
    rejected_wins = (-margin).sigmoid() * (F.logsigmoid(-margin) - math.log(label_smoothing))
    return chosen_wins + rejected_wins


def discopop(pairs: PairLogps, *, beta: float, tau: float = 0.05) -> Tensor:
    """DiscoPOP: (1 - s) · (-log σ(x)) + s · exp(-x), with x = β h and s = σ(x/τ).

    The exponential and its weight are multiplied as logarithms: exp(-x) alone overflows where s vanishes.
    Lu et al. 2024, arXiv 2406.08414, Eq. 5.
    At policy = reference: (log 2 + 1)/2. Chosen gradient: POSITIVE there for τ < (1 - log 2)/3 ≈ 0.102. For τ = 0.05
    the loss has a minimum at x ≈ -0.119 and a maximum at 0.072: pairs in between are pushed towards the rejected side.
    """
    if not 0.0 < tau < 1.0:
        raise UserError(f"tau is {tau}: it must lie between 0 and 1, else the exponential branch is never switched off")
    x = beta * _margin(pairs)
    logistic = -F.logsigmoid(x) * (-x / tau).sigmoid()
    exponential = (F.logsigmoid(x / tau) - x).exp()
    return logistic + exponential


def sigmoid_norm(pairs: PairLogps, *, beta: float) -> Tensor:
    """Length-normalised DPO: -log σ(β (r_w/|y_w| - r_l/|y_l|)). β is larger than DPO's, by about a response's length.

    Lambert et al. 2024 (Tülu 3), arXiv 2411.15124. At policy = reference: log 2. Chosen gradient: negative everywhere.
    """
    return -F.logsigmoid(beta * _margin_per_token(pairs))


def length_controlled(pairs: PairLogps, *, beta: float, alpha: float = 0.01) -> Tensor:
    """R-DPO: -log σ(β h + α (|y_w| - |y_l|)). α, per token, is what a token of extra length must earn.

    A pair whose chosen response is the longer one counts as partly explained by length and pulls less.
    Park et al. 2024, arXiv 2403.19159.
    At policy = reference: log 2 for equal lengths, else log(1 + exp(-α Δ)). Chosen gradient: negative everywhere.
    """
    margin = beta * _margin(pairs)
    # Cast first: an integer tensor times a float would be float32 and would lose digits of float64.
    longer = (pairs.chosen_count - pairs.rejected_count).to(margin.dtype)
    return -F.logsigmoid(margin + alpha * longer)


def dpop(pairs: PairLogps, *, beta: float, penalty: float = 50.0) -> Tensor:
    """DPO-Positive: -log σ(β [h - λ max(0, -r_w)]): falling below the reference on the chosen side costs λ times more.

    Pal et al. 2024 (Smaug), arXiv 2402.13228, Eq. 3; ``penalty`` is λ.
    At policy = reference: log 2. Chosen gradient: negative everywhere, 1 + λ times DPO's below the reference.
    """
    chosen, rejected = log_ratios(pairs)
    return -F.logsigmoid(beta * (chosen - rejected - penalty * F.relu(-chosen)))
