"""The same batch twice in training mode: what differs is noise that the loss is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from trueup.health.findings import Finding, Severity
from trueup.preflight.modes import mode
from trueup.preflight.outcome import Outcome, made
from trueup.preflight.subject import Sample, Subject

CHECK = "repeated forward pass"
TOLERANCE = 1e-6
COMMON = frozenset({"sft", "reward", "orpo"})
"""Methods that compare the policy with no reference and no sampler: dropout there is a choice of regularisation."""
REFERENCE = "probe P2 of the catalogue of silent failures; F34"


@torch.no_grad()
def check_repeat(subject: Subject, sample: Sample) -> Outcome:
    """Score the same rows twice in the mode that training uses."""
    places = dropouts(subject.trained)
    gap = _gap(subject, sample)
    told = f"training mode, twice: largest difference {gap:.0e}"
    # Dropout before an adapter does not show while the adapter is 0, as it is at the start.
    if gap <= TOLERANCE and not places:
        return made(CHECK, told)
    asked = bool(places) and all(map(of_adapter, places)) and _gap(subject, sample, places) <= TOLERANCE
    return made(CHECK, told, [_asked_for(gap, places) if asked else _noisy(subject, gap, places)])


def _gap(subject: Subject, sample: Sample, off: Iterable[str] = ()) -> float:
    """Largest difference of two passes over one row in training mode, the modules that ``off`` names left out of it."""
    batch = subject.batching.collate([sample.trees[sample.few[0]]])
    with mode(subject.trained, True):
        for name in off:
            subject.trained.get_submodule(name).eval()
        one, two = subject.observe(batch), subject.observe(batch)
    return float((one - two).abs().max())


def of_adapter(name: str) -> bool:
    """Is it PEFT's own dropout before an adapter, which is on because the settings of the adapter say so?"""
    return "lora_dropout" in name.split(".")


def _asked_for(gap: float, places: Mapping[str, float]) -> Finding:
    message = f"Dropout of {max(places.values()):g} before adapters is on, as it was asked for, and no other."
    remedy = "Fine as regularisation; margins and KLs of training steps are noisier than those of eval (lora.dropout)."
    return _finding("note", message, remedy, gap, places)


def _noisy(subject: Subject, gap: float, places: Mapping[str, float]) -> Finding:
    where = f"dropout of {max(places.values()):g} in {len(places)} modules" if places else "no dropout module is active"
    message = f"The same rows scored twice in training mode differ by up to {gap:.3g}: {where}."
    if subject.method in COMMON:
        remedy = "Fine as regularisation; metrics of training steps are noisier than those of eval."
        return _finding("note", message, remedy, gap, places)
    remedy = (
        "The reference, and the policy that samples, are scored without it, so the noise counts as a difference of "
        "policies. Set the dropout to 0 (lora.dropout, or *_dropout in the model's config.json)."
    )
    return _finding("warning", message, remedy, gap, places)


def _finding(severity: Severity, message: str, remedy: str, gap: float, places: Mapping[str, float]) -> Finding:
    evidence = {"largest_difference": gap, "modules": sorted(places)[:10]}
    return Finding("dropout-on", severity, 0, message, remedy, evidence, REFERENCE)


def dropouts(module: nn.Module) -> dict[str, float]:
    """Name -> probability of every dropout that is not zero."""
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
    return {name: part.p for name, part in module.named_modules() if isinstance(part, kinds) and part.p > 0}
