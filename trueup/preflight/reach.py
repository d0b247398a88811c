"""Where the gradient arrives: at everything that is trained, and at nothing that is frozen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from trueup.health.findings import Finding
from trueup.models import adapters
from trueup.preflight.modes import moved
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.slope import Slope, measure_slope
from trueup.preflight.stride import stride
from trueup.preflight.subject import Sample, Subject

CHECK = "reach of the gradient"
STORAGE = "reference apart from the policy"
DEAD_SHARE = 0.05
"""Share of trained tensors without any gradient from which on something is wrong; F50 of the catalogue."""
REFERENCE = "F49, F50, F51 of the catalogue of silent failures"


def check_reach(subject: Subject, sample: Sample) -> Outcome:
    """Look for trained tensors without a gradient, in training mode, at the start and after one small step.

    The second look is for what has none at the start by design: an adapter's A while its B is 0, a critic's backbone
    while its head is 0.
    """
    names = [name for name, p in subject.trained.named_parameters() if p.requires_grad]
    leaves = subject.leaves
    if not leaves:
        return made(CHECK, "no tensor is trained", [_nothing("no parameter of the model is trainable", 0)])
    first = measure_slope(subject, [sample.some], training=True)
    broken = [n for n, g in zip(names, first.gradients, strict=True) if g is not None and not bool(g.isfinite().all())]
    if broken:
        return made(CHECK, f"{len(broken)} of {len(names)} gradients are not finite", [_not_finite(broken)])
    if sample.rehearsal is not None and first.norm == 0:
        return skipped(CHECK, "the rehearsed responses are all paid the same, so there is no gradient")
    if first.norm == 0:
        return made(CHECK, "no gradient at all", [_nothing("the loss has no gradient in any of them", len(names))])
    dead = _without(names, first)
    if dead:
        with moved(leaves, first.gradients, stride(leaves, first)):
            second = measure_slope(subject, [sample.some], training=True)
        dead = sorted(set(dead) & set(_without(names, second)))
    told = f"{len(names) - len(dead)} of {len(names)} trained tensors have a gradient, all finite"
    findings = [_dead(dead, len(names))] if len(dead) > DEAD_SHARE * len(names) else []
    frozen = [name for name, p in subject.trained.named_parameters() if not p.requires_grad]
    if frozen and not adapters.is_adapted(subject.policy):  # no setting freezes a part, so something else has
        findings = [_frozen(frozen, len(names) + len(frozen)), *findings]
    return made(CHECK, told, findings)


def check_storage(subject: Subject, sample: Sample) -> Outcome | None:
    """A reference that shares memory with the policy is the policy: every margin and KL would be 0."""
    if subject.reference is None:
        return None
    shared = _storages(subject.trained) & _storages(subject.reference)
    trained = [name for name, p in subject.reference.named_parameters() if p.requires_grad]
    if not shared and not trained:
        return made(STORAGE, "no storage is shared, and none of it is trained")
    what = f"shares {len(shared)} tensors with the policy" if shared else f"has {len(trained)} trainable tensors"
    message = f"The frozen reference {what}: it would follow the policy, and every margin and KL come out as 0."
    remedy = "Copy the model before it is trained, and freeze the copy."
    evidence = {"shared": len(shared), "trainable": len(trained)}
    finding = Finding("reference-aliased", "fatal", 0, message, remedy, evidence, "F35 of the catalogue")
    return made(STORAGE, what, [finding])


def _storages(module: nn.Module) -> set[int]:
    return {p.untyped_storage().data_ptr() for p in module.parameters() if p.numel()}


def _without(names: Sequence[str], slope: Slope) -> list[str]:
    """Names of the leaves that a gradient does not reach."""
    found = zip(names, slope.gradients, strict=True)
    return [name for name, gradient in found if gradient is None or not bool(torch.count_nonzero(gradient))]


def _nothing(why: str, tensors: int) -> Finding:
    message = f"Nothing would be trained: {why}."
    remedy = "Look for requires_grad = False, an adapter loaded for inference, or a detached hidden state."
    return Finding("gradient-lost", "fatal", 0, message, remedy, {"tensors": tensors}, REFERENCE)


def _dead(names: Sequence[str], tensors: int) -> Finding:
    message = f"{len(names)} of {tensors} trained tensors get no gradient from the first rows: {', '.join(names[:3])}."
    remedy = "Freeze what should not train, or find what cuts the graph. Experts that no token chose are no fault."
    evidence = {"dead": list(names[:20]), "tensors": tensors}
    return Finding("gradient-missing", "warning", 0, message, remedy, evidence, REFERENCE)


def _frozen(names: Sequence[str], tensors: int) -> Finding:
    message = f"{len(names)} of {tensors} tensors are frozen, although there are no adapters: {', '.join(names[:3])}."
    remedy = "Look for what sets requires_grad = False; to train a small part on purpose, use lora.rank."
    evidence = {"frozen": list(names[:20]), "tensors": tensors}
    return Finding("gradient-missing", "warning", 0, message, remedy, evidence, REFERENCE)


def _not_finite(names: Sequence[str]) -> Finding:
    message = f"The first gradient is not finite in {len(names)} tensors: {', '.join(names[:3])}."
    remedy = "Set model.dtype: float32; if it stays, look for NaN in the weights, and at the rows of the first step."
    evidence = {"tensors": list(names[:20])}
    return Finding("gradient-not-finite", "fatal", 0, message, remedy, evidence, REFERENCE)
