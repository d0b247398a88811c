"""The conformance kit on policy losses, advantage estimation and divergences: faults are named, right code passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trueup.losses.policy import clipped_surrogate
from trueup.ops import divergences
from trueup.ops.returns import gae as our_gae
from trueup.preflight.conformance import gae, grpo_loss, kl
from trueup.preflight.conformance.kit import check, close
from trueup.preflight.conformance.protocol import Kind

KINDS = {"grpo_loss": grpo_loss.KIND, "gae": gae.KIND, "kl": kl.KIND}


def _answers(kind: Kind) -> list[tuple[str, str, list[np.ndarray]]]:
    """(fault or "", convention, what it gives on each case) of all that is right and all that is suspected."""
    oracles = [("", kind.right), *((s.fault.name, s.oracle) for s in kind.suspects if not s.also)]
    return [
        (name, convention, [np.asarray(oracle(case.inputs, convention)) for case in kind.cases])
        for name, oracle in oracles
        for convention in kind.conventions
    ]


def _same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(close(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_what_is_right_is_told_apart_by_convention(name: str) -> None:
    right = [(convention, values) for fault, convention, values in _answers(KINDS[name]) if not fault]
    assert [(a, b) for (a, x), (b, y) in itertools.combinations(right, 2) if _same(x, y)] == []


@pytest.mark.parametrize("name", KINDS)
def test_no_fault_looks_like_another_fault_or_like_what_is_right_elsewhere(name: str) -> None:
    """A fault that has no effect under a convention equals what is right there, and is not a fault there."""
    answers = _answers(KINDS[name])
    right = {convention: values for fault, convention, values in answers if not fault}
    wrong = [(f, c, v) for f, c, v in answers if f and not _same(v, right[c])]
    assert {f for f, _, _ in wrong} == {suspect.fault.name for suspect in KINDS[name].suspects}
    confused = [(f, c, other) for f, c, v in wrong for other, values in right.items() if _same(v, values)]
    confused += [
        (f, c, f"{g} {d}") for (f, c, v), (g, d, w) in itertools.combinations(wrong, 2) if f != g and _same(v, w)
    ]
    assert confused == []


@pytest.mark.parametrize("name", KINDS)
def test_the_conventions_of_oracles_keep_the_inputs(name: str) -> None:
    """No oracle writes into the cases that the next one is asked about."""
    before = [{k: np.copy(v) for k, v in case.inputs.items()} for case in KINDS[name].cases]
    _answers(KINDS[name])
    for case, kept in zip(KINDS[name].cases, before, strict=True):
        assert all(np.array_equal(case.inputs[k], v) for k, v in kept.items())


def _masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum() / mask.sum()


def grpo(  # every way to get it wrong is a keyword
    logps: Tensor,
    old: Tensor,
    a: Tensor,
    mask: Tensor,
    clip: float,
    ref: Tensor | None = None,
    beta: float = 0.0,
    *,
    ratio: Callable[[Tensor, Tensor], Tensor] = lambda new, old: (new - old).exp(),
    pick: Callable[[Tensor, Tensor], Tensor] = torch.minimum,
    kl: Callable[[Tensor, Tensor], Tensor] = lambda p, q: (q - p).exp() - 1 - (q - p),
    sign: float = -1.0,
    reduce: Callable[[Tensor, Tensor], Tensor] = _masked_mean,
) -> Tensor:
    r = ratio(logps, old)
    loss = sign * pick(r * a[:, None], r.clamp(1 - clip, 1 + clip) * a[:, None])
    if ref is not None:
        loss = loss + beta * kl(logps, ref)
    return reduce(loss, mask)


def _with_reference(**wrong: Any) -> Callable[..., Tensor]:
    def function(
        logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip: float, ref_logps: Tensor, beta: float
    ) -> Tensor:
        return grpo(logps, old_logps, advantages, mask, clip, ref_logps, beta, **wrong)

    return function


def _without_reference(**wrong: Any) -> Callable[..., Tensor]:
    def function(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip: float = 0.2) -> Tensor:
        return grpo(logps, old_logps, advantages, mask, clip, **wrong)

    return function


def _per_response(x: Tensor, mask: Tensor) -> Tensor:
    return ((x * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


def _ours(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    credit = advantages[:, None].expand_as(logps)[mask]
    return clipped_surrogate(logps[mask], old_logps[mask], credit, clip, clip).loss.mean()


def _no_clip_parameter(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    return grpo(logps, old_logps, advantages, mask, 0.2, reduce=_per_response)


def _of_trl(
    per_token_logps: Tensor,
    old_per_token_logps: Tensor,
    advantages: Tensor,
    completion_mask: Tensor,
    epsilon: float,
    ref_per_token_logps: Tensor,
    beta: float,
) -> Tensor:
    """The GRPO loss as TRL's documentation writes it, ``loss_type="grpo"``."""
    coefficient = torch.exp(per_token_logps - old_per_token_logps)
    free, held = coefficient * advantages[:, None], torch.clamp(coefficient, 1 - epsilon, 1 + epsilon)
    difference = ref_per_token_logps - per_token_logps
    loss = -torch.min(free, held * advantages[:, None]) + beta * (torch.exp(difference) - difference - 1)
    return ((loss * completion_mask).sum(-1) / completion_mask.sum(-1).clamp(min=1.0)).mean()


RIGHT_GRPO = {
    "ours": (_ours, "tokens"),
    "plain": (_without_reference(), "tokens"),
    "with a reference": (_with_reference(), "tokens"),
    "a mean for each response": (_with_reference(reduce=_per_response), "responses"),
    "TRL": (_of_trl, "responses"),
    "Dr. GRPO": (_with_reference(reduce=lambda x, m: (x * m).sum() / m.numel()), "length"),
    "k2": (_with_reference(kl=lambda p, q: 0.5 * (p - q) ** 2), "tokens, k2"),
    "its own clip": (_no_clip_parameter, "responses"),
}


@pytest.mark.parametrize("name", RIGHT_GRPO)
def test_right_policy_losses_conform(name: str) -> None:
    function, convention = RIGHT_GRPO[name]
    verdict = check(function, "grpo_loss")
    assert verdict.conforms, verdict.lines
    assert verdict.conventions["convention"] == grpo_loss.CONVENTIONS[convention]


def _ratio_one(new: Tensor, old: Tensor) -> Tensor:
    return (new - new.detach()).exp()


WRONG_GRPO = {
    "no minus": (_without_reference(sign=1.0), "grpo-missing-minus"),
    "no minus, KL kept": (_with_reference(sign=1.0), "grpo-missing-minus"),
    "no clip": (_without_reference(pick=lambda free, held: free), "grpo-not-clipped"),
    "max": (_without_reference(pick=torch.maximum), "grpo-max-for-min"),
    "held alone": (_without_reference(pick=lambda free, held: held), "grpo-clipped-without-min"),
    "inverted": (_without_reference(ratio=lambda new, old: (old - new).exp()), "grpo-ratio-inverted"),
    "no exp": (_without_reference(ratio=lambda new, old: new - old), "grpo-log-ratio"),
    "old from new": (_without_reference(ratio=_ratio_one), "grpo-ratio-one"),
    "no mask": (_without_reference(reduce=lambda x, m: x.mean()), "grpo-mask-ignored"),
    "padding in the sum": (_without_reference(reduce=lambda x, m: x.sum() / m.sum()), "grpo-mask-ignored"),
    "no mean": (_without_reference(reduce=lambda x, m: (x * m).sum()), "grpo-not-averaged"),
    "clip kept at 0.2": (lambda logps, old_logps, advantages, mask, clip: grpo(
        logps, old_logps, advantages, mask, 0.2), "grpo-clip-range"),
    "half the clip": (lambda logps, old_logps, advantages, mask, clip: grpo(
        logps, old_logps, advantages, mask, clip / 2), "grpo-clip-range"),
    "advantages turned": (lambda logps, old_logps, advantages, mask, clip: grpo(
        logps, old_logps, -advantages, mask, clip), "grpo-advantage-sign"),
    "whitened again": (lambda logps, old_logps, advantages, mask, clip: grpo(
        logps, old_logps, (advantages - advantages.mean()) / (advantages.std() + 1e-6), mask, clip),
        "grpo-advantages-rescaled"),
    "advantages per token": (lambda logps, old_logps, advantages, mask: _masked_mean(
        -torch.minimum((logps - old_logps).exp() * advantages,
                       (logps - old_logps).exp().clamp(0.8, 1.2) * advantages), mask), "grpo-advantage-along-tokens"),
    "KL paid": (_with_reference(kl=lambda p, q: -(q - p).exp() + 1 + (q - p)), "grpo-kl-sign"),
    "k1": (_with_reference(kl=lambda p, q: p - q), "grpo-kl-k1"),
    "k3 reversed": (_with_reference(kl=lambda p, q: (p - q).exp() - 1 - (p - q)), "grpo-kl-reversed"),
    "KL off": (_with_reference(kl=lambda p, q: torch.zeros_like(p)), "grpo-kl-off"),
    "KL detached": (_with_reference(kl=lambda p, q: divergences.k3(p, q).detach()), "grpo-kl-detached"),
    "KL in the advantage": (lambda logps, old_logps, advantages, mask, clip, ref_logps, beta: _masked_mean(
        -torch.minimum((logps - old_logps).exp() * (advantages[:, None] - beta * (logps - ref_logps)),
                       (logps - old_logps).exp().clamp(1 - clip, 1 + clip)
                       * (advantages[:, None] - beta * (logps - ref_logps))), mask), "grpo-kl-in-advantage"),
    "ratio detached": (_without_reference(ratio=lambda new, old: (new - old).exp().detach()), "grpo-no-gradient"),
    "gradient turned": (_without_reference(ratio=lambda new, old: (2 * new.detach() - new - old).exp()),
                        "grpo-gradient"),
    "empty response": (_without_reference(reduce=lambda x, m: ((x * m).sum(1) / m.sum(1)).mean()),
                       "grpo-empty-response"),
    "in place": (lambda logps, old_logps, advantages, mask: grpo(
        logps, old_logps, advantages.mul_(1.0), mask.logical_not_().logical_not(), 0.2), "inputs-changed"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_GRPO)
def test_faults_of_policy_losses_are_named(name: str) -> None:
    function, fault = WRONG_GRPO[name]
    assert check(function, "grpo_loss").faults == (fault,)


@pytest.mark.parametrize(
    ("wrong", "faults"),
    [
        ({"sign": 1.0, "reduce": lambda x, m: x.mean()}, {"grpo-missing-minus", "grpo-mask-ignored"}),
        ({"sign": 1.0, "pick": lambda free, held: free}, {"grpo-missing-minus", "grpo-not-clipped"}),
        ({"ratio": _ratio_one, "kl": lambda p, q: p - q}, {"grpo-ratio-one", "grpo-kl-k1"}),
    ],
)
def test_two_faults_of_a_policy_loss_are_both_named(wrong: dict[str, Any], faults: set[str]) -> None:
    assert set(check(_with_reference(**wrong), "grpo_loss").faults) == faults


def test_what_a_caller_may_have_detached_is_a_note() -> None:
    assert "grpo-constants-attached" in check(_of_trl, "grpo_loss").notes
    assert "grpo-overflow" in check(_of_trl, "grpo_loss").notes

    def careful(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
        return _ours(logps, old_logps.detach(), advantages.detach(), mask, clip)

    assert check(careful, "grpo_loss").notes == ()


def back(  # every way to get it wrong is a keyword
    r: Tensor,
    v: Tensor,
    gamma: float,
    lam: float,
    mask: Tensor | None = None,
    *,
    last: Callable[[Tensor], Tensor] = torch.zeros_like,
    delta_gamma: Callable[[float], float] = lambda gamma: gamma,
    decay: Callable[[float, float], float] = lambda gamma, lam: gamma * lam,
    baseline: float = 1.0,
    times: Callable[[int], list[int]] = lambda n: list(range(n))[::-1],
) -> Tensor:
    out = torch.zeros_like(r)
    running = torch.zeros_like(r[:, 0])
    for t in times(r.shape[1]):
        following = last(v[:, t]) if t == r.shape[1] - 1 else v[:, t + 1]
        going = torch.ones_like(running)
        if mask is not None:
            going = mask[:, t + 1].float() if t < r.shape[1] - 1 else torch.zeros_like(running)
        delta = r[:, t] + delta_gamma(gamma) * following * going - baseline * v[:, t]
        running = delta + decay(gamma, lam) * running * (going if mask is not None else 1.0)
        out[:, t] = running
    return out


def _gae(**wrong: Any) -> Callable[..., Tensor]:
    def function(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
        return back(rewards, values, gamma, lam, **wrong)

    return function


def _our_gae(rewards: Tensor, values: Tensor, gamma: float, lam: float, mask: Tensor) -> tuple[Tensor, Tensor]:
    branch = mask.nonzero()[:, 0]
    flat, total = our_gae(rewards[mask], values[mask], branch, len(mask), gamma, lam)
    advantages, returns = torch.zeros_like(rewards), torch.zeros_like(rewards)
    advantages[mask], returns[mask] = flat, total
    return advantages, returns


def _masked_gae(rewards: Tensor, values: Tensor, gamma: float, lam: float, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Leaves in the padding whatever comes out there, without a gradient to the critic."""
    advantages = back(rewards, values, gamma, lam, mask).detach()
    return advantages, advantages + values


def _whitened_gae(rewards: Tensor, values: Tensor, gamma: float, lam: float, mask: Tensor) -> tuple[Tensor, Tensor]:
    raw = back(rewards, values, gamma, lam, mask)
    return (raw - raw[mask].mean()) / (raw[mask].std() + 1e-8), raw + values


def _returns_of_whitened(rewards: Tensor, values: Tensor, gamma: float, lam: float, mask: Tensor) -> Any:
    white, _ = _whitened_gae(rewards, values, gamma, lam, mask)
    return white, white + values


def _unpadded(rewards: Tensor, values: Tensor, gamma: float, lam: float, mask: Tensor) -> Tensor:
    return back(rewards, values, gamma, lam)


def _spoils(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    result = back(rewards.clone(), values.detach(), gamma, lam)
    rewards.add_(values)
    return result


@pytest.mark.parametrize("function", [_our_gae, _masked_gae, _whitened_gae, _gae()])
def test_right_advantages_conform(function: Callable[..., Any]) -> None:
    verdict = check(function, "gae")
    assert verdict.conforms, verdict.lines


def test_values_that_are_not_detached_are_a_note() -> None:
    assert check(_masked_gae, "gae").notes == ()
    assert check(_gae(), "gae").notes == ("gae-values-not-detached",)
    assert check(_whitened_gae, "gae").notes == ("gae-values-not-detached",)


WRONG_GAE = {
    "lambda 0": (_gae(decay=lambda gamma, lam: 0.0), "gae-lambda-ignored"),
    "lambda 1": (_gae(decay=lambda gamma, lam: gamma), "gae-monte-carlo"),
    "nothing runs back": (lambda rewards, values, gamma, lam: rewards - values, "gae-immediate-reward"),
    "gamma not on the value": (_gae(delta_gamma=lambda gamma: 1.0), "gae-gamma-forgotten"),
    "gamma not in the decay": (_gae(decay=lambda gamma, lam: lam), "gae-gamma-forgotten"),
    "gamma twice in the decay": (_gae(decay=lambda gamma, lam: gamma * gamma * lam), "gae-gamma-twice"),
    "swapped": (lambda rewards, values, gamma, lam: back(rewards, values, lam, gamma), "gae-gamma-lam-swapped"),
    "bootstrap": (_gae(last=lambda v: v), "gae-terminal-bootstrap"),
    "own value": (
        lambda rewards, values, gamma, lam: back(rewards + gamma * values, values, 1.0, gamma * lam,
                                                 delta_gamma=lambda gamma: 0.0, decay=lambda gamma, lam: lam),
        "gae-next-value"),
    "forward": (_gae(times=lambda n: list(range(n))), "gae-reversed-time"),
    "padding": (_unpadded, "gae-padding"),
    "returns": (lambda rewards, values, gamma, lam: back(rewards, values, gamma, lam) + values, "gae-returns"),
    "no baseline": (_gae(baseline=0.0), "gae-no-baseline"),
    "no critic": (_gae(baseline=0.0, delta_gamma=lambda gamma: 0.0, decay=lambda gamma, lam: gamma),
                  "gae-no-baseline"),
    "sign": (lambda rewards, values, gamma, lam: -back(rewards, values, gamma, lam), "gae-sign"),
    "returns of whitened": (_returns_of_whitened, "gae-returns-not-advantages-plus-values"),
    "in place": (_spoils, "inputs-changed"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_GAE)
def test_faults_of_advantages_are_named(name: str) -> None:
    function, fault = WRONG_GAE[name]
    assert check(function, "gae").faults == (fault,)
