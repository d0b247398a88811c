"""Every variant's expected gradient, on and off the policy that sampled, against its paper's objective enumerated.

The formulas below are written from the papers on arrays ``[prompt, response, the other of its pair, token]``; the code
under test sees a rollout in which every pair occurs as often as it is drawn. Each is then made wrong on purpose.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from laboratory import cosine
from tabular import (
    CAP,
    LENGTH,
    MASK,
    REFERENCE,
    REWARDS,
    SAMPLER,
    Mistake,
    Table,
    expected_update,
    noisy,
    population,
    probabilities,
    token_logps,
    with_gradient,
)
from torch import Tensor, nn

from trueup.losses.overrides import resolve
from trueup.losses.variants import VARIANTS, Variant
from trueup.models.forward import token_scores
from trueup.train.experience import AssignCredit, Credit, Experience
from trueup.train.lessons import RolloutBatch
from trueup.train.objectives.grpo import GrpoObjective, grpo_credit

MOVED = noisy(0.6, 2)
"""A policy that several updates have taken away from the one that sampled: ratios of 0.3 to 3."""

WHOLE = population()
DRAWN = probabilities(SAMPLER) / 2
"""How often each response to each prompt occurs, ``[2, 7]``; the prompts are equally likely."""
PAIRS = 2 * DRAWN[:, :, None] * DRAWN[:, None, :]
BEHAVIOUR, ANCHOR = token_logps(SAMPLER), token_logps(REFERENCE)
K1 = BEHAVIOUR - ANCHOR


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def in_pairs(values: Tensor) -> Tensor:
    """Of each response in each pair, whatever the other: ``[2, 7, 7, ...]``."""
    return values.unsqueeze(2).expand(-1, -1, values.shape[1], *values.shape[2:])


def standardised(worth: Tensor) -> Tensor:
    """(R - mean)/std of the first of each pair; the standard deviation of two numbers is their distance over √2."""
    first, second = worth[:, :, None], worth[:, None, :]
    return (first - (first + second) / 2) / ((first - second).abs() / 2**0.5 + 1e-4)


def of_tokens(logps: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """min(ρ A, clip(ρ) A) of the tokens of the first of each pair, 0 where there is none."""
    ratio = in_pairs((logps - BEHAVIOUR).exp())
    return clipped(ratio, advantage[..., None], low, high) * MASK[:, None]


TOKENS_PER_RESPONSE = (DRAWN * LENGTH).sum()


def grpo(logps: Tensor) -> Tensor:
    away = in_pairs(ANCHOR - logps)
    penalty = 0.04 * (away.exp() - 1 - away) * MASK[:, None]
    gain = of_tokens(logps, standardised(REWARDS), 0.2, 0.2) - penalty
    return (PAIRS * gain.sum(dim=3) / LENGTH[:, None]).sum()


def dr_grpo(logps: Tensor) -> Tensor:
    half = (REWARDS[:, :, None] - REWARDS[:, None, :]) / 2
    return (PAIRS * of_tokens(logps, half, 0.2, 0.2).sum(dim=3)).sum() / CAP


def dapo(logps: Tensor) -> Tensor:
    return (PAIRS * of_tokens(logps, standardised(REWARDS), 0.2, 0.28).sum(dim=3)).sum() / TOKENS_PER_RESPONSE


def bnpo(logps: Tensor) -> Tensor:
    return (PAIRS * of_tokens(logps, standardised(REWARDS), 0.2, 0.2).sum(dim=3)).sum() / TOKENS_PER_RESPONSE


def gspo(logps: Tensor) -> Tensor:
    ratio = ((logps - BEHAVIOUR).sum(dim=2) / LENGTH).exp()
    return (PAIRS * clipped(in_pairs(ratio), standardised(REWARDS), 3e-4, 4e-4)).sum()


def cispo(logps: Tensor) -> Tensor:
    weight = (logps - BEHAVIOUR).exp().clamp(max=1.5).detach()
    gain = in_pairs(weight * logps * MASK).sum(dim=3) * standardised(REWARDS)
    return (PAIRS * gain).sum() / TOKENS_PER_RESPONSE


def rloo(logps: Tensor) -> Tensor:
    worth = REWARDS - 0.05 * K1.sum(dim=2)
    ratio = (logps - BEHAVIOUR).sum(dim=2).exp()
    return (PAIRS * clipped(in_pairs(ratio), worth[:, :, None] - worth[:, None, :], 0.2, 0.2)).sum()


def reinforce_plus_plus(logps: Tensor) -> Tensor:
    to_go = REWARDS[..., None] - 0.01 * K1.flip(2).cumsum(2).flip(2)
    share = DRAWN[..., None] * MASK / TOKENS_PER_RESPONSE
    mean = (share * to_go).sum()
    advantage = (to_go - mean) / (share * (to_go - mean) ** 2).sum().sqrt()
    return (share * clipped((logps - BEHAVIOUR).exp(), advantage, 0.2, 0.2)).sum()


UNDER_TEST = dict(VARIANTS) | {"cispo": resolve("cispo", {"clip_high": 0.5})}
"""As published, but that CISPO's bound is 1.5, which ratios reach here, and not 5, which they do not."""

PAPERS: dict[str, Callable[[Tensor], Tensor]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "bnpo": bnpo,
    "gspo": gspo,
    "cispo": cispo,
    "rloo": rloo,
    "reinforce++": reinforce_plus_plus,
}


def found(
    variant: Variant, start: Tensor, assign: AssignCredit | None = None, mistakes: tuple[Mistake, ...] = ()
) -> Tensor:
    """The expected update that the code makes of a variant, for a policy that starts from these logits."""
    objective = GrpoObjective(variant, temperature=1.0, max_length=CAP)
    return expected_update(Table(start), objective, assign or grpo_credit(variant), WHOLE, mistakes)


@functools.cache
def expected(name: str, away: bool = True) -> Tensor:
    return with_gradient(lambda logits: PAPERS[name](token_logps(logits)), MOVED if away else SAMPLER)


def error(update: Tensor, exact: Tensor) -> float:
    return float((update - exact).norm() / exact.norm())


def test_every_variant_has_its_formula_here() -> None:
    assert PAPERS.keys() == VARIANTS.keys()


@pytest.mark.parametrize("away", [False, True], ids=["on policy", "off policy"])
@pytest.mark.parametrize("name", PAPERS)
def test_the_expected_update_is_that_of_the_paper(name: str, away: bool) -> None:
    update = found(UNDER_TEST[name], MOVED if away else SAMPLER)
    assert error(update, expected(name, away)) < 1e-6


def reversed_credit(variant: Variant) -> AssignCredit:
    def wrong(model: nn.Module, experience: Experience) -> Credit:
        credit = grpo_credit(variant)(model, experience)
        return replace(credit, advantages=-credit.advantages)

    return wrong


def recomputed(batch: RolloutBatch, policy: nn.Module) -> RolloutBatch:
    """Old log-probabilities taken from the policy as it is now: every ratio is 1."""
    return replace(batch, old_logps=token_scores(policy, batch.trees).logps.detach())


OTHER_UNIT = {"sequence": "token", "token": "sequence", "max_length": "token"}
OTHER_RATIO = {"token": "sequence", "sequence": "product", "product": "sequence"}
WITHOUT_BASELINE = {"group": {"baseline": "none"}, "leave_one_out": {"baseline": "none"}, "none": {}}

MISTAKES: dict[str, Callable[[Variant], Tensor]] = {
    "the sign of the advantage": lambda v: found(v, MOVED, reversed_credit(v)),
    "no baseline": lambda v: found(
        v, MOVED, grpo_credit(replace(v, **WITHOUT_BASELINE[v.baseline] or {"scale_rewards": "batch"}))
    ),
    "another unit": lambda v: found(replace(v, unit=OTHER_UNIT[v.unit]), MOVED),
    "another ratio": lambda v: found(replace(v, importance=OTHER_RATIO[v.importance]), MOVED),
    "recomputed old log-probabilities": lambda v: found(v, MOVED, mistakes=(recomputed,)),
    "no clip": lambda v: found(replace(v, clip="none"), MOVED),
    "the sign of the KL penalty": lambda v: found(replace(v, kl_coef=-v.kl_coef), MOVED),
    "the other's standard deviation": lambda v: found(
        v, MOVED, grpo_credit(replace(v, scale_rewards="none" if v.scale_rewards == "group" else "group"))
    ),
}


WRONG = [(n, m) for n in PAPERS for m in MISTAKES if m != "the sign of the KL penalty" or VARIANTS[n].kl_coef]


@pytest.mark.parametrize(("name", "mistake"), WRONG)
def test_mistakes_are_seen(name: str, mistake: str) -> None:
    """Each changes the expected update by far more than the tolerance of the test above."""
    assert error(MISTAKES[mistake](UNDER_TEST[name]), expected(name)) > 1e-3


@pytest.mark.parametrize("name", [name for name, variant in VARIANTS.items() if variant.baseline != "none"])
def test_what_all_responses_to_a_prompt_are_paid_alike_teaches_nothing(name: str) -> None:
    """It is the baseline that takes it off: on the policy, a missing one would show in no mean, only in the noise."""
    level = torch.tensor([7.0, -4.0], dtype=torch.float64)
    shifted = population(rewards=REWARDS + level[:, None])
    assign, model = grpo_credit(VARIANTS[name]), Table(SAMPLER)
    plain, lifted = (assign(model, experience).advantages for experience in (WHOLE, shifted))
    torch.testing.assert_close(lifted, plain, rtol=1e-9, atol=1e-9)
    bare = grpo_credit(replace(VARIANTS[name], baseline="none"))
    assert (bare(model, shifted).advantages - bare(model, WHOLE).advantages).abs().max() > 1


def worth(logits: Tensor, beta: float = 0.0) -> Tensor:
    """E[reward] - beta KL(policy || reference) of whole responses."""
    logps = token_logps(logits)
    of_response = logps.sum(dim=2)
    distance = (logps - ANCHOR).sum(dim=2)
    return (of_response.exp() * (REWARDS - beta * distance)).sum() / 2


def test_rloo_climbs_the_reward_less_the_kl() -> None:
    """The leave-one-out estimator is unbiased, and k1 in the reward is the price of the KL: no factor, no angle."""
    for beta in (0.0, 0.05, 2.0):
        exact = with_gradient(lambda logits, beta=beta: worth(logits, beta), SAMPLER)
        assert error(found(resolve("rloo", {"kl_coef": beta}), SAMPLER), exact) < 1e-9


def test_reinforce_plus_plus_climbs_it_too_up_to_a_factor() -> None:
    for beta in (0.01, 2.0):
        exact = with_gradient(lambda logits, beta=beta: worth(logits, beta), SAMPLER)
        assert cosine(found(resolve("reinforce++", {"kl_coef": beta}), SAMPLER), exact) > 1 - 1e-9


def test_dr_grpo_climbs_the_reward_at_its_own_known_rate() -> None:
    """The mean of a group has the response itself in it, which takes 1/G of the gradient; the cap is its constant."""
    exact = with_gradient(worth, SAMPLER)
    assert error(found(VARIANTS["dr_grpo"], SAMPLER), exact / 2 / CAP) < 1e-9


@pytest.mark.parametrize("name", ["grpo", "gspo", "dapo"])
def test_dividing_by_spread_or_length_turns_the_direction(name: str) -> None:
    """The documented bias: not the gradient of the expected reward, though on its side of the hill."""
    variant = replace(VARIANTS[name], kl_coef=0.0)
    assert 0.3 < cosine(found(variant, SAMPLER), with_gradient(worth, SAMPLER)) < 0.995


def test_off_policy_only_the_ratio_of_whole_responses_keeps_the_gradient() -> None:
    """Importance sampling: E_old[ρ(y) A ∇ log π(y)] is the gradient at the policy as it is now, wherever that is."""
    exact = with_gradient(worth, MOVED)
    free = resolve("rloo", {"clip": "none", "kl_coef": 0.0})
    assert error(found(free, MOVED), exact) < 1e-9
    by_token = replace(free, importance="token", unit="max_length")
    assert cosine(found(by_token, MOVED), exact) < 0.999
    assert cosine(found(free, MOVED, mistakes=(recomputed,)), exact) < 0.99


def test_a_bound_on_bad_tokens_changes_them_alone() -> None:
    """δ: with one no ratio reaches nothing changes, with a tight one bad responses that became likelier count less."""
    plain = found(VARIANTS["dr_grpo"], MOVED)
    assert torch.equal(found(resolve("dr_grpo", {"delta": 50.0}), MOVED), plain)
    tight = resolve("dr_grpo", {"delta": 1.3})
    half = (REWARDS[:, :, None] - REWARDS[:, None, :]) / 2

    def bounded(logits: Tensor) -> Tensor:
        ratio = in_pairs((token_logps(logits) - BEHAVIOUR).exp())
        gain = torch.minimum(ratio.clamp(max=1.3) * half[..., None], ratio.clamp(0.8, 1.2) * half[..., None])
        return (PAIRS * (gain * MASK[:, None]).sum(dim=3)).sum() / CAP

    exact = with_gradient(bounded, MOVED)
    assert error(found(tight, MOVED), exact) < 1e-9
    assert error(plain, exact) > 1e-3
