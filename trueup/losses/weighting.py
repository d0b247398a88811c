"""Weights that pairs carry into a loss."""

from __future__ import annotations

from torch import Tensor

from trueup.losses.elementary import per_token
from trueup.types import PairLogps


def wpo_weights(
    pairs: PairLogps, chosen_alignment: Tensor | float = 0.0, rejected_alignment: Tensor | float = 0.0
) -> Tensor:
    """Return WPO's weights w(y_w) w(y_l), constants ``[B]``, by which per-pair losses are multiplied.

    w(y) = exp(mean over tokens of [log π(y_t) - log Σ_v π(v)²]): pairs that the policy would write itself count more,
    which makes off-policy pairs resemble on-policy ones. The sums are "sampled alignment": they bring a policy that
    samples from itself to about weight one. Zhou et al. 2024, arXiv 2406.11827, Eq. 2.

    Args:
        pairs: summed log-probabilities and counts; references are not used.
        chosen_alignment: float ``[B]``, the sum over the chosen response's tokens of log Σ_v π(v)²; 0 for none.
        rejected_alignment: the same of the rejected response.
    """
    chosen = per_token(pairs.chosen - chosen_alignment, pairs.chosen_count)
    rejected = per_token(pairs.rejected - rejected_alignment, pairs.rejected_count)
    return (chosen + rejected).exp().detach()
