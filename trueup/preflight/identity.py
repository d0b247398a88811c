"""Step-0 identity: before the first update the policy is the reference, token by token and in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trueup.data.batching import Batching
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.health.findings import Finding
from trueup.models.forward import token_scores
from trueup.train.objectives.preference import PreferenceObjective, pair_logps

REFERENCE = "house rule: step-0 identity; probe P1 of the catalogue of silent failures"


@dataclass(frozen=True)
class Identity:
    """What the first batch says before any update: largest token difference in nats, the loss and what it must be."""

    token_difference: float
    loss: float
    expected: float


@torch.no_grad()
def measure_identity(
    model: nn.Module, objective: PreferenceObjective, trees: Sequence[Tree], batching: Batching
) -> Identity:
    """Score a few pairs under policy and reference through the paths training uses."""
    assert objective.reference is not None
    batch = batching.collate(trees)
    was_training = model.training
    model.eval()
    logps, reference = token_scores(model, batch).logps, objective.reference(batch)
    model.train(was_training)
    loss = objective.losses(pair_logps(logps, reference, batch))
    same = objective.losses(pair_logps(reference, reference, batch))
    return Identity(float((logps - reference).abs().max()), float(loss.mean()), float(same.mean()))


def identity_findings(found: Identity, same_model: bool) -> list[Finding]:
    """Judge a measured identity; a reference that was given as another model is expected to differ.

    The expected loss is computed by the loss itself from equal log-probabilities, in the dtype in use, so no literal
    of log 2 is compared; NaN fails.
    """
    tolerance = 1e-4
    if found.token_difference <= tolerance and abs(found.loss - found.expected) <= tolerance:
        return []
    gap = f"largest token difference {found.token_difference:.3g} nats"
    numbers = f"{gap}, loss {found.loss:.6f} against {found.expected:.6f}"
    evidence = {"token_difference": found.token_difference, "loss": found.loss, "expected_loss": found.expected}
    if not same_model:
        message = f"The policy does not start at the reference: {numbers}."
        return [
            Finding(
                "reference-elsewhere", "note", 0, message, "Fine if you meant to anchor elsewhere.", evidence, REFERENCE
            )
        ]
    message = f"Before any update the policy should equal its reference, but: {numbers}."
    remedy = "Check that both run in evaluation mode, in one dtype, with one tokenizer and one mask."
    return [Finding("step0-identity", "fatal", 0, message, remedy, evidence, REFERENCE)]


def read_back_findings(wrong: Sequence[int], total: int, encoder: Encoder) -> list[Finding]:
    """Judge the mask read-back: trained tokens must be the response text and one terminator."""
    if not wrong:
        return []
    name = encoder.tokenizer.convert_ids_to_tokens(encoder.terminator)
    message = f"{len(wrong)} of {total} responses do not decode to their own text followed by one {name}."
    remedy = (
        f"Look at row {wrong[0]} of the data: special tokens or unusual characters in it do not survive the tokenizer."
    )
    evidence = {"rows": list(wrong[:10]), "checked": total}
    return [
        Finding(
            "mask-read-back", "warning", 0, message, remedy, evidence, "probe P3 of the catalogue of silent failures"
        )
    ]
