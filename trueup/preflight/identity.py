"""Step-0 identity: before the first update the policy is the reference, token by token and in the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trueup.data.encode import ReadBack
from trueup.data.template import Encoder
from trueup.data.trees import Tree
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
    model: nn.Module,
    batch: TokenTrees,
    ref_logps: Tensor,
    losses: Callable[[Tensor, Tensor], Tensor],
    temperature: float = 1.0,
) -> Identity:
    """Score a few rows of the data under policy and reference through the paths training uses.

    Args:
        model: the policy.
        batch: the rows.
        ref_logps: ``[N]``, what the reference says of their response tokens.
        losses: (policy's, reference's log-probabilities of the tokens) -> the loss of each pair or response.
        temperature: of both.
    """
    logps = scorer(model, temperature)(batch)
    loss, same = losses(logps, ref_logps), losses(ref_logps, ref_logps)
    return Identity(float((logps - ref_logps).abs().max()), float(loss.mean()), float(same.mean()))


def identity_findings(found: Identity, same_model: bool, half: bool = False) -> list[Finding]:
    """Judge a measured identity; a reference that was given as another model is expected to differ.

    The expected loss is computed by the loss itself from equal log-probabilities, in the dtype in use, so no literal
    of log 2 is compared; NaN fails. In half precision (``half``) log-probabilities depend on how rows are batched.
    """
    token, loss = (0.5, 0.05) if half else (1e-4, 1e-4)
    if found.token_difference <= token and abs(found.loss - found.expected) <= loss:
        return []
    gap = f"largest token difference {found.token_difference:.3g} nats"
    numbers = f"{gap}, loss {found.loss:.6f} against {found.expected:.6f}"
    evidence = {"token_difference": found.token_difference, "loss": found.loss, "expected_loss": found.expected}
    if not same_model:
        message = f"The policy does not start at the reference: {numbers}."
        return [
            Finding(
                "reference-elsewhere",
                "note",
                0,
                message,
                "Fine if you meant to anchor elsewhere; else leave out preference.reference (kto.reference).",
                evidence,
                REFERENCE,
            )
        ]
    message = f"Before any update the policy should equal its reference, but: {numbers}."
    remedy = (
        "Delete the stored reference (preference.store or kto.store, else ~/.cache/trueup/reference) and start again; "
        "if it stays, set model.layout: plain and model.dtype: float32. In code of your own: both in evaluation mode, "
        "in one dtype, with one tokenizer and one mask."
    )
    return [Finding("step0-identity", "fatal", 0, message, remedy, evidence, REFERENCE)]


def value_findings(found: Identity, value: float | None) -> list[Finding]:
    """Judge the loss of equal log-probabilities by the catalog's ``value``; None where the catalog has none.

    A loss that leaves the reference out, or takes that of the other side, agrees with itself and not with the catalog.
    """
    if value is None or abs(found.expected - value) <= 1e-3 * max(1.0, abs(value)):
        return []
    numbers = f"should be {value:.6f} (docs/losses.md) and is {found.expected:.6f}"
    message = f"Where policy and reference agree this loss {numbers}."
    remedy = "The loss does not compare each side with the reference of that side: look at what it is given."
    evidence = {"expected_loss": value, "loss": found.expected}
    return [
        Finding("loss-value", "fatal", 0, message, remedy, evidence, "F39, F65 of the catalogue of silent failures")
    ]


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


def laid_out_findings(trees: Sequence[Tree], batch: TokenTrees, encoder: Encoder) -> list[Finding]:
    """Judge a batch against the trees that it was made of: what is scored of a response must be all of it, in order."""
    responses = [response for tree in trees for response in tree.responses]
    scored: list[list[int]] = [[] for _ in responses]
    for token, number in zip(batch.target.tolist(), batch.branch.tolist(), strict=True):
        scored[number].append(token)
    wrong = [number for number, ids in enumerate(scored) if tuple(ids) != responses[number]]
    if not wrong:
        return []
    first = wrong[0]
    message = (
        f"In {len(wrong)} of {len(responses)} responses of the first batch the tokens that are scored are not those of "
        f"the response: {encoder.text(scored[first])!r} of {encoder.text(responses[first])!r}, "
        f"{len(scored[first])} tokens of {len(responses[first])}."
    )
    remedy = "The batch's mask leaves tokens out or takes others; one that goes by ids hides a terminator that pads."
    evidence = {"wrong": len(wrong), "responses": len(responses)}
    return [Finding("mask-read-back", "fatal", 0, message, remedy, evidence, "probe P3, F06 of the catalogue")]
