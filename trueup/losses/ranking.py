"""The reward model's loss: Bradley-Terry on scores."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry(
    chosen_scores: Tensor, rejected_scores: Tensor, margin: Tensor | float | None = None, centring: float = 0.0
) -> Tensor:
    """Return -log σ(s_w - s_l - m) + c (s_w + s_l)², unreduced.

    The first term cannot tell s from s + constant; the second, with c > 0, pulls the mean score to zero.
    m: Touvron et al. 2023 (Llama 2), arXiv 2307.09288, Eq. 2. c: Eisenstein et al. 2023, arXiv 2312.09244, Eq. 2, who
    use 0.01. Equal scores of zero and no margin give log 2. Chosen gradient: negative everywhere for c = 0.

    Args:
        chosen_scores: float ``[B]``.
        rejected_scores: float ``[B]``.
        margin: by how much the chosen score should lead, ``[B]`` or one number, in units of the score.
        centring: c, at least 0.
    """
    lead = chosen_scores - rejected_scores
    loss = -F.logsigmoid(lead if margin is None else lead - margin)
    if centring == 0.0:
        return loss
    return loss + centring * (chosen_scores + rejected_scores).square()
