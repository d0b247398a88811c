"""Float32 masters: small updates of bfloat16 weights are not lost, and nothing changes for float32 weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trueup.train.master import MasterWeights, lost_share


def trained(dtype: torch.dtype, masters: bool, steps: int = 200, rate: float = 1e-4) -> torch.Tensor:
    """A weight of 1 under a constant gradient of 1, by plain gradient descent."""
    model = nn.Linear(1, 1, bias=False).to(dtype)
    nn.init.ones_(model.weight)
    kept = MasterWeights(model)
    optimizer = torch.optim.SGD(kept.masters if masters else list(model.parameters()), lr=rate)
    for _ in range(steps):
        model(torch.ones(1, 1, dtype=dtype)).sum().backward()
        if masters:
            kept.collect()
        optimizer.step()
        kept.spread() if masters else None
        optimizer.zero_grad()
    return model.weight.detach().float()


def test_updates_below_the_spacing_of_bfloat16_add_up_only_with_masters() -> None:
    assert trained(torch.bfloat16, masters=False).item() == 1.0, "each update is rounded away"
    assert trained(torch.bfloat16, masters=True).item() == pytest.approx(0.98, abs=2**-8)


def test_float32_weights_are_their_own_masters() -> None:
    model = nn.Linear(2, 2)
    kept = MasterWeights(model)
    assert all(master is weight for master, weight in zip(kept.masters, model.parameters(), strict=True))
    assert kept.state() == []
    assert torch.equal(trained(torch.float32, True), trained(torch.float32, False))


def test_gradients_of_micro_batches_are_summed_in_float32() -> None:
    """257 gradients of 1 sum to 257; in bfloat16 the sum stops at 256, where 1 is half its spacing."""
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    kept = MasterWeights(model)
    for _ in range(257):
        model(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        kept.collect()
    assert kept.masters[0].grad is not None
    assert kept.masters[0].grad.item() == 257.0


def test_frozen_weights_have_no_master() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).to(torch.bfloat16)
    model[0].requires_grad_(False)
    assert len(MasterWeights(model).masters) == 2


@pytest.mark.parametrize(("dtype", "rate", "lost"), [(torch.bfloat16, 1e-6, 1.0), (torch.float32, 1e-6, 0.0)])
def test_share_of_updates_that_would_be_lost(dtype: torch.dtype, rate: float, lost: float) -> None:
    weights = [torch.linspace(0.01, 1.0, 100, dtype=dtype)]
    assert lost_share(weights, rate) == lost
    assert lost_share([torch.tensor([1.0, 1e-5], dtype=torch.bfloat16)], 1e-6) == 0.5
