"""DPO with faults that people have had; every one of them trains, and none raises. Which is which?

trueup conformance examples/my_wrong_dpo.py:get_logps --kind token_logps
trueup conformance examples/my_wrong_dpo.py:dpo_loss --kind dpo_loss
trueup conformance examples/my_wrong_dpo.py:stable --kind dpo_loss
trueup conformance examples/my_wrong_dpo.py:logged --kind dpo_loss
trueup conformance examples/my_wrong_dpo.py:grpo_loss --kind grpo_loss
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def get_logps(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    """Sums of log-probabilities ``[B]``."""
    logps = logits[:, :-1].float().log_softmax(-1)
    picked = logps.gather(2, input_ids[:, 1:, None]).squeeze(2)
    return (picked * response_mask[:, :-1]).sum(1)


def dpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """The mean loss."""
    margin = (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected)
    return F.logsigmoid(margin).mean() * beta


def stable(
    policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """The loss of each pair, made safe against log(0)."""
    margin = (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected)
    return -torch.log(torch.sigmoid(beta * margin) + 1e-8)


def logged(
    policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> dict[str, Tensor]:
    """The loss, with what goes on the dashboard."""
    margin = (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected)
    accuracy = (margin >= 0).float().mean()
    return {"loss": -F.logsigmoid(beta * margin).mean(), "margin": margin.mean().detach(), "accuracy": accuracy}


def grpo_loss(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip: float = 0.2) -> Tensor:
    """The clipped objective over response tokens."""
    ratio = torch.exp(logps - old_logps)
    credit = advantages[:, None]
    objective = torch.min(ratio * credit, ratio.clamp(1 - clip, 1 + clip) * credit)
    return (objective * mask).sum() / mask.sum()
