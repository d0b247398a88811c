"""DPO in twenty lines, right: what ``trueup conformance`` looks at.

trueup conformance examples/my_dpo.py:get_logps --kind token_logps
trueup conformance examples/my_dpo.py:dpo_loss --kind dpo_loss
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def get_logps(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    """Sums of the response tokens' log-probabilities ``[B]``; the position before a token predicts it."""
    logps = logits[:, :-1].float().log_softmax(-1)
    picked = logps.gather(2, input_ids[:, 1:, None]).squeeze(2)
    return (picked * response_mask[:, 1:]).sum(1)


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of each pair, and the implicit rewards of both sides for the log."""
    chosen = beta * (policy_chosen_logps - ref_chosen_logps.detach())
    rejected = beta * (policy_rejected_logps - ref_rejected_logps.detach())
    return -F.logsigmoid(chosen - rejected), chosen.detach(), rejected.detach()


if __name__ == "__main__":
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, 10, generator=rng, requires_grad=True)
    ids = torch.randint(10, (4, 6), generator=rng)
    mask = torch.arange(6).expand(4, 6) >= 3
    chosen, rejected = get_logps(logits, ids, mask).chunk(2)
    losses, *_ = dpo_loss(chosen, rejected, chosen, rejected)
    losses.mean().backward()
    print("at policy = reference the loss is log 2:", losses.tolist())
