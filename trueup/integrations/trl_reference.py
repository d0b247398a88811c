"""The reference of a TRL trainer: before the first step it says what the policy says, and it is not the policy."""

from __future__ import annotations

import math

import torch
from torch import nn

from trueup.health.findings import Finding
from trueup.integrations.trl_bench import HALF, Bench
from trueup.losses.catalog import CATALOG
from trueup.preflight.outcome import Outcome, made, skipped

IDENTITY, STORAGE = "policy = reference at step 0", "reference apart from the policy"
REFERENCE = "probe P1 of the catalogue of silent failures; F31-F39"


def check_identity(bench: Bench) -> Outcome | None:
    """Row by row, the trainer's own implicit rewards (or KL) are 0, and its loss is the loss type's own value."""
    if bench.method not in ("dpo", "kto", "grpo", "rloo"):
        return None
    if not getattr(bench.trainer, "beta", 0.0):
        return skipped(IDENTITY, "beta is 0: no reference is used")
    alone = [_row(bench, i) for i in bench.few]
    gap = max((row[0] for row in alone), key=lambda value: math.inf if math.isnan(value) else value)
    loss = sum(row[1] for row in alone) / len(alone)
    expected = _expected(bench)
    told = f"policy and reference differ by at most {gap:.1e} nats a token; loss {loss:.6f}"
    told += "" if expected is None else f" (at policy = reference: {expected:.6f})"
    limit = bench.tolerance
    if gap <= limit and (expected is None or abs(loss - expected) <= limit * max(1.0, abs(expected))):
        return made(IDENTITY, told)
    return made(IDENTITY, told, [_different(bench, gap, loss, expected)])


@torch.no_grad()
def _row(bench: Bench, number: int) -> tuple[float, float]:
    """Of one row alone: how far policy and reference are apart in nats a token, and the loss."""
    batch = bench.batch([number])
    look = bench.look(batch)
    if bench.method in ("grpo", "rloo"):
        # k3 is half the square of a small difference; k1, RLOO's, is the difference.
        gap = (batch["ref_per_token_logps"] - batch["old_per_token_logps"]) * batch["completion_mask"]
        return float(gap.abs().max()), float(look.loss)
    sides = [look.metrics[f"rewards/{side}"] for side in ("chosen", "rejected") if f"rewards/{side}" in look.metrics]
    tokens = int((batch["completion_mask"] != 0).sum(1).min())
    return max(map(abs, sides)) / bench.trainer.beta / max(1, tokens), float(look.loss)


def _expected(bench: Bench) -> float | None:
    """What the trainer's sum of losses is where policy and reference agree; None where that has no fixed value."""
    trainer = bench.trainer
    if bench.method != "dpo" or trainer.use_weighting or getattr(trainer, "aux_loss_enabled", False):
        return None
    total = 0.0
    for name, weight in zip(trainer.loss_types, trainer.loss_weights, strict=True):
        loss = CATALOG.get(name)
        given = {"label_smoothing": trainer.label_smoothing} if loss and "label_smoothing" in loss.options else {}
        value = loss.value_at_reference(trainer.beta, **given) if loss else None
        if value is None:
            return None
        total += weight * value
    return total


def _different(bench: Bench, gap: float, loss: float, expected: float | None) -> Finding:
    numbers = f"at most {gap:.3g} nats a token, loss {loss:.6f}"
    numbers += "" if expected is None else f" against {expected:.6f}"
    evidence = {"token_difference": gap, "loss": loss, "expected_loss": expected}
    if not _same_weights(bench):
        message = f"The reference is another model than the one that training starts from: they differ by {numbers}."
        remedy = (
            "Fine if you meant to anchor elsewhere; otherwise leave ref_model out, and TRL takes a copy of the policy."
        )
        return Finding("reference-elsewhere", "warning", 0, message, remedy, evidence, REFERENCE)
    message = f"Before any update the policy should equal its reference, but they differ by {numbers}."
    remedy = (
        "Check that both run without dropout, in one dtype, with one mask, and that stored values are this model's."
    )
    severity = "warning" if bench.tolerance == HALF else "fatal"
    return Finding("step0-identity", severity, 0, message, remedy, evidence, REFERENCE)


def _same_weights(bench: Bench) -> bool:
    """Is the reference the policy as it starts: a copy, the same without its adapter, or stored values?"""
    reference = getattr(bench.trainer, "ref_model", None)
    if reference is None:
        return True
    own = dict(bench.model.named_parameters())
    return all(
        name in own and own[name].shape == p.shape and torch.equal(own[name].to(p), p)
        for name, p in reference.named_parameters()
    )


def check_storage(bench: Bench) -> Outcome | None:
    """A reference that shares memory with the policy follows it, and one that can be trained is no reference."""
    reference = getattr(bench.trainer, "ref_model", None)
    if reference is None:
        return None
    shared = _storages(bench.model) & _storages(reference)
    if not shared:
        return made(STORAGE, "no storage is shared")
    message = f"The reference shares {len(shared)} tensors with the policy: every margin and KL would come out as 0."
    remedy = "Leave ref_model out, or give a model that was loaded by itself."
    finding = Finding("reference-aliased", "fatal", 0, message, remedy, {"shared": len(shared)}, "F35 of the catalogue")
    return made(STORAGE, f"{len(shared)} tensors are shared", [finding])


def _storages(module: nn.Module) -> set[int]:
    """Where the parameters that are trained, or would be if they were the policy's, lie in memory."""
    return {p.untyped_storage().data_ptr() for p in module.parameters() if p.numel()}
