"""Variants of GRPO against TRL's GRPO and RLOO trainers: advantages, losses and gradients on the same responses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trl_online import CAP, GROUP, LENGTHS, REWARDS, TREES, loss_of, scored, trainer
from trl_peer import EOS, QUIET, moved, tiny_llama

from trueup.data.batching import Batching, map_tokens
from trueup.losses.overrides import resolve
from trueup.losses.variants import Variant
from trueup.models.forward import scorer
from trueup.train.experience import Experience, without
from trueup.train.lessons import RolloutBatch
from trueup.train.objectives.grpo import GrpoObjective, grpo_credit

pytest.importorskip("trl", reason="TRL is a peer of the tests alone: pip install '.[peers]'")
pytestmark = QUIET

BATCHING = Batching("shared", 10**6, torch.device("cpu"))


@dataclass(frozen=True)
class Ours:
    """The first step's advantages ``[K]``, loss and gradient by the code under test."""

    advantages: Tensor
    loss: float
    gradient: Tensor


def experience(policy: Any, reference: Any) -> Experience:
    """The responses as if ``policy`` had sampled them."""
    counts = torch.tensor([len(response) for tree in TREES for response in tree.responses])
    ended = torch.tensor([response[-1] == EOS for tree in TREES for response in tree.responses])
    rewards = torch.tensor(REWARDS)
    return Experience(
        trees=TREES,
        group=torch.arange(len(TREES)).repeat_interleave(GROUP),
        branch=torch.arange(len(counts)).repeat_interleave(counts),
        old_logps=map_tokens(TREES, scorer(policy), BATCHING),
        ref_logps=map_tokens(TREES, scorer(reference), BATCHING),
        scores=rewards,
        parts={},
        rewards=rewards,
        ended=ended,
    )


def ours(variant: Variant, lived: Experience, policy: Any, mask_truncated: bool = False) -> Ours:
    """Credit by the policy that sampled, loss and gradient of ``policy`` as it now is."""
    credit = grpo_credit(variant)(policy, lived).advantages
    first = torch.searchsorted(lived.branch, torch.arange(len(REWARDS)))
    kept = lived.ended if mask_truncated else torch.ones_like(lived.ended)
    tokens = kept[lived.branch]
    trees = BATCHING.collate(without(TREES, ~kept))
    batch = RolloutBatch(trees, lived.old_logps[tokens], lived.ref_logps[tokens], credit[tokens], None, None, False)
    objective = GrpoObjective(variant, temperature=1.0, max_length=CAP)
    policy.train()
    policy.zero_grad()
    terms, counts = objective(policy, batch).terms.values(), objective.units(batch)
    loss = torch.stack([term.total * (term.weight / counts[term.unit]) for term in terms]).sum()
    loss.backward()
    flat = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    return Ours(credit[first], float(loss.detach()), flat)


def both(
    kind: str, variant: Variant, out: Path, mask: bool = False, **settings: Any
) -> tuple[Ours, Tensor, float, Tensor]:
    """Ours; TRL's advantages, loss and gradient. The policy moves between the sampling and the loss."""
    reference = tiny_llama()
    policy = moved(reference, 0.03)
    lived = experience(policy, reference)
    peer = trainer(kind, policy, reference, out, **settings)
    theirs = scored(peer)
    policy.load_state_dict(moved(policy, 0.03, seed=2).state_dict())
    return ours(variant, lived, policy, mask), theirs.advantages, *loss_of(peer, policy, theirs.inputs)


def require_equal(found: Ours, advantages: Tensor, loss: float, gradient: Tensor) -> None:
    torch.testing.assert_close(found.advantages, advantages, rtol=1e-4, atol=2e-5)
    assert found.loss == pytest.approx(loss, rel=2e-4, abs=1e-5)
    assert float(gradient.norm()) > 1e-3
    assert float((found.gradient - gradient).norm() / gradient.norm()) < 5e-4


PLAIN = {"use_bias_correction_kl": False}
GRPO: dict[str, tuple[Variant, dict[str, Any]]] = {
    "grpo": (resolve("grpo", {}), {"loss_type": "grpo", "beta": 0.04, **PLAIN}),
    "grpo, corrected KL": (resolve("grpo", {"kl_corrected": True}), {"loss_type": "grpo", "beta": 0.04}),
    "dr_grpo": (resolve("dr_grpo", {}), {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    "dapo": (resolve("dapo", {}), {"loss_type": "dapo", "epsilon_high": 0.28}),
    "bnpo": (resolve("bnpo", {"kl_coef": 0.1}), {"loss_type": "bnpo", "beta": 0.1, **PLAIN}),
    "gspo": (
        resolve("gspo", {}),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    ),
    "cispo": (resolve("cispo", {}), {"loss_type": "cispo", "epsilon_high": 5.0}),
    "cispo, bounded": (resolve("cispo", {"clip_high": 0.05}), {"loss_type": "cispo", "epsilon_high": 1.05}),
    "two-sided": (
        resolve("dapo", {"delta": 1.1, "clip_low": 0.05, "clip_high": 0.05}),
        {"loss_type": "dapo", "delta": 1.1, "epsilon": 0.05},
    ),
    "batch scale": (resolve("bnpo", {"scale_rewards": "batch"}), {"loss_type": "bnpo", "scale_rewards": "batch"}),
    "responses clipped whole, tokens counted": (
        resolve("dapo", {"importance": "sequence"}),
        {"loss_type": "dapo", "importance_sampling_level": "sequence", "epsilon_high": 0.28},
    ),
}


@pytest.mark.parametrize("case", GRPO)
def test_grpo(case: str, tmp_path: Path) -> None:
    variant, settings = GRPO[case]
    require_equal(*both("GRPO", variant, tmp_path, **settings))


@pytest.mark.parametrize(("beta", "clip"), [(0.05, 0.2), (0.0, 0.2), (0.5, 0.01)])
def test_rloo(beta: float, clip: float, tmp_path: Path) -> None:
    variant = resolve("rloo", {"kl_coef": beta, "clip_low": clip, "clip_high": clip})
    require_equal(*both("RLOO", variant, tmp_path, beta=beta, epsilon=clip))


def test_truncated_responses_masked(tmp_path: Path) -> None:
    """The same where tokens are the unit."""
    require_equal(*both("GRPO", resolve("bnpo", {}), tmp_path, True, loss_type="bnpo", mask_truncated_completions=True))


def test_masked_responses_are_units_in_trl_and_none_here(tmp_path: Path) -> None:
    """TRL divides by all 12 responses, of which 2 were cut off and count as zeros."""
    variant = resolve("grpo", {"kl_coef": 0.0})
    found, advantages, loss, gradient = both(
        "GRPO", variant, tmp_path, True, loss_type="grpo", mask_truncated_completions=True
    )
    cut = sum(n == CAP for _, responses in LENGTHS for n in responses)
    assert cut == 2
    share = (len(REWARDS) - cut) / len(REWARDS)
    require_equal(replace(found, loss=found.loss * share, gradient=found.gradient * share), advantages, loss, gradient)


def test_a_rollout_used_in_two_steps_is_divided_by_its_own_tokens_here_and_by_the_mean_of_both_there(
    tmp_path: Path,
) -> None:
    """TRL's dapo loss of one of two steps has half of the rollout's tokens as its divisor, however many it holds."""
    reference = tiny_llama()
    policy = moved(reference, 0.03)
    peer = trainer("GRPO", policy, reference, tmp_path, loss_type="dapo", steps_per_generation=2)
    inputs = scored(peer).inputs
    row = slice(0, GROUP)
    half = {k: v[row] if v.dim() else v for k, v in inputs.items() if v is not None}
    own, rollout = (sum(sum(r) for _, r in LENGTHS[:n]) for n in (1, len(LENGTHS)))
    theirs, _ = loss_of(peer, policy, half)
    whole, _ = loss_of(peer, policy, {**half, "num_items_in_batch": torch.tensor(float(2 * own))})
    assert theirs == pytest.approx(whole * own / (rollout / 2), rel=1e-5)
    assert own / (rollout / 2) < 0.75
