"""How much of a rollout the reference scores: it changes what is measured, and nothing that is trained."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from step_cases import LENGTHS, causal, rollouts
from torch import Tensor

from trueup.errors import RunError
from trueup.losses.variants import VARIANTS
from trueup.train.experience import Experience
from trueup.train.lessons import by_credit
from trueup.train.objectives.grpo import GrpoObjective, grpo_credit
from trueup.train.rollout import RolloutSource
from trueup.train.step import count_units
from trueup.types import TokenTrees

PLAIN = replace(VARIANTS["grpo"], kl_coef=0.0)
KL = ("kl/policy_reference_k1", "kl/policy_reference_k3", "kl/sequence_k1")


def source_of(share: float, seen: list[Experience] | None = None) -> RolloutSource:
    credit = grpo_credit(PLAIN)

    def watched(model: torch.nn.Module, experience: Experience):
        if seen is not None:
            seen.append(experience)
        return credit(model, experience)

    source = rollouts(torch.float32, 10**6, 4, watched)
    source.use = by_credit(watched)
    source.plan = replace(source.plan, kl_share=share)
    return source


def gradients(share: float) -> list[Tensor]:
    model, objective = causal(torch.float32), GrpoObjective(PLAIN, 1.0, 6)
    batches = source_of(share).draw(model, 0).batches
    count = count_units(objective, batches)["sequence"]
    for batch in batches:
        (objective(model, batch).terms["policy"].total / count).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_metrics_are_those_of_the_responses_that_were_scored() -> None:
    seen: list[Experience] = []
    model = causal(torch.float32)
    whole = source_of(1.0, seen).draw(model, 0).metrics
    part = source_of(0.5, seen).draw(model, 0).metrics
    full, half = seen
    first = full.group[full.branch] < len(LENGTHS) // 2
    assert torch.equal(~half.ref_logps.isnan(), first)
    ratio = (full.old_logps - full.ref_logps)[first].double()
    assert part["kl/policy_reference_k1"] == pytest.approx(float(ratio.mean()), rel=1e-5)
    assert part["kl/sequence_k1"] == pytest.approx(float(ratio.sum()) / (4 * len(LENGTHS) // 2), rel=1e-5)
    assert part["kl/policy_reference_k1"] != whole["kl/policy_reference_k1"]


def test_a_share_is_rounded_up_to_a_prompt() -> None:
    seen: list[Experience] = []
    source_of(0.01, seen).draw(causal(torch.float32), 0)
    asked = ~seen[0].ref_logps.isnan()
    assert seen[0].group[seen[0].branch][asked].unique().tolist() == [0]


def test_without_a_reference_there_is_no_kl_and_the_gradient_is_the_same() -> None:
    assert set(KL).isdisjoint(source_of(0.0).draw(causal(torch.float32), 0).metrics)
    pairs = list(zip(gradients(1.0), gradients(0.0), strict=True))
    assert any(bool(one.any()) for one, _ in pairs)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_reference_that_gives_no_numbers_is_not_taken_for_one_that_was_not_asked() -> None:
    source = source_of(1.0)

    def broken(trees: TokenTrees) -> Tensor:
        return torch.full((len(trees.branch),), math.nan)

    source.reference = broken
    with pytest.raises(RunError, match="not numbers"):
        source.draw(causal(torch.float32), 0)


def test_what_was_not_scored_cannot_be_used_unseen() -> None:
    """A penalty on responses of which no KL is known has a loss that is no number, and that stops a run."""
    objective = GrpoObjective(replace(PLAIN, kl_coef=0.1), 1.0, 6)
    model = causal(torch.float32)
    batch = source_of(0.5).draw(model, 0).batches[0]
    assert bool(objective(model, batch).terms["kl"].total.isnan())
