"""The conformance kit on estimates of a divergence: right ones pass under their convention, faults are named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trueup.ops import divergences
from trueup.preflight.conformance import kl
from trueup.preflight.conformance.kit import check
from trueup.preflight.conformance.protocol import Verdict


def _kl(formula: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    def function(logp: Tensor, ref_logp: Tensor) -> Tensor:
        return formula(logp, ref_logp)

    return check(function, "kl")


@pytest.mark.parametrize(
    ("formula", "convention", "notes"),
    [
        (divergences.k1, "k1", ("kl-k1-as-loss",)),
        (divergences.k2, "k2", ()),
        (divergences.k3, "k3", ()),
        (lambda p, q: torch.exp(q - p) - (q - p) - 1, "k3", ("kl-overflow",)),
        (lambda p, q: (p - q).mean(), "k1, mean", ("kl-k1-as-loss",)),
        (lambda p, q: divergences.k3(p, q).mean(), "k3, mean", ()),
        (lambda p, q: divergences.k2(p, q).sum(-1), "k2, sums", ()),
        (lambda p, q: (p - q).detach(), "k1", ("kl-detached",)),
    ],
)
def test_right_divergences_conform(formula: Callable[..., Tensor], convention: str, notes: tuple[str, ...]) -> None:
    verdict = _kl(formula)
    assert verdict.conforms, verdict.lines
    assert (verdict.conventions["convention"], verdict.notes) == (kl.CONVENTIONS[convention], notes)


@pytest.mark.parametrize(
    ("formula", "fault"),
    [
        (lambda p, q: q - p, "kl-reversed"),
        (lambda p, q: (p - q).exp() - 1 - (p - q), "kl-reversed"),
        (lambda p, q: ((p - q).exp() - 1 - (p - q)).mean(), "kl-reversed"),
        (lambda p, q: -divergences.k3(p, q), "kl-sign"),
        (lambda p, q: (q - p).exp() - (q - p), "kl-k3-formula"),
        (lambda p, q: (p - q).exp() - 1 - (q - p), "kl-k3-formula"),
        (lambda p, q: (q - p).expm1(), "kl-k3-formula"),
        (lambda p, q: (p - q).abs(), "kl-absolute"),
        (lambda p, q: (p - q).clamp(min=0), "kl-clamped"),
        (lambda p, q: (p - q).square().mean(), "kl-square-without-half"),
        (lambda p, q: p.exp() * (p - q), "kl-weighted"),
        (lambda p, q: torch.nn.functional.kl_div(p, q, reduction="none", log_target=True), "kl-weighted"),
        (lambda p, q: divergences.k3(p.detach(), q) + 0 * p, "kl-gradient"),
        (lambda p, q: (q - p).exp() - 1 - (q - p).detach(), "kl-gradient"),
        (lambda p, q: p.sub_(q), "inputs-changed"),
    ],
)
def test_faults_of_divergences_are_named(formula: Callable[..., Tensor], fault: str) -> None:
    assert _kl(formula).faults == (fault,)


def test_a_mask_that_is_taken_and_not_used_is_named() -> None:
    def ignores(logps: Tensor, ref_logps: Tensor, mask: Tensor) -> Tensor:
        return (logps - ref_logps).mean()

    def uses(logps: Tensor, ref_logps: Tensor, mask: Tensor) -> Tensor:
        return ((logps - ref_logps) * mask).sum() / mask.sum()

    assert check(ignores, "kl").faults == ("kl-mask-ignored",)
    assert check(uses, "kl").conforms
