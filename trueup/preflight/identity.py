"""Step-0 identity: before the first update the policy is the reference, token by token and in the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trueup.data.encode import ReadBack
from trueup.data.template import Encoder
from trueup.health.findings import Finding
from trueup.models.forward import scorer
from trueup.types import TokenTrees

REFERENCE = "house rule: step-0 identity; probe P1 of the catalogue of silent failures"


@dataclass(frozen=True)
class Identity:
    """What the first batch says before any update: largest token difference in nats, the loss and what it must be."""

    token_difference: float
    loss: float
    expected: float

    def describe(self) -> str:
        """One line for people."""
        return (
            f"step 0: policy and reference differ by at most {self.token_difference:.1e} nats a token; "
            f"loss {self.loss:.6f} (at policy = reference: {self.expected:.6f})"
        )


@torch.no_grad()
def measure_identity(
    model: nn.Module, batch: TokenTrees, ref_logps: Tensor, losses: Callable[[Tensor, Tensor], Tensor]
) -> Identity:
    """Score a few rows of the data under policy and reference through the paths training uses.

    Args:
        model: the policy.
        batch: the rows.
        ref_logps: ``[N]``, what the reference says of their response tokens.
        losses: (policy's, reference's log-probabilities of the tokens) -> the loss of each pair or response.
    """
    logps = scorer(model)(batch)
    loss, same = losses(logps, ref_logps), losses(ref_logps, ref_logps)
    return Identity(float((logps - ref_logps).abs().max()), float(loss.mean()), float(same.mean()))


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


def read_back_findings(found: ReadBack, encoder: Encoder) -> list[Finding]:
    """Judge the mask read-back: trained tokens must be the response text and one terminator."""
    if not found.wrong:
        return []
    name = encoder.tokenizer.convert_ids_to_tokens(encoder.terminator)
    message = (
        f"In {found.wrong} of {found.checked} rows a response does not decode to its own text followed by one {name}."
    )
    remedy = f"Look at {found.places[0]}: special tokens or unusual characters in it do not survive the tokenizer."
    evidence = {"wrong": found.wrong, "checked": found.checked, "places": list(found.places)}
    return [
        Finding(
            "mask-read-back", "warning", 0, message, remedy, evidence, "probe P3 of the catalogue of silent failures"
        )
    ]
