"""Garbage where nobody should read: neither loss nor gradient may notice."""

from __future__ import annotations

from dataclasses import replace

import torch

from trueup.health.findings import Finding
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.slope import measure_slope
from trueup.preflight.subject import Sample, Subject
from trueup.types import TokenTrees

CHECK = "garbage in padding"
REFERENCE = "probe P5 of the catalogue of silent failures; F28, F86"


def check_padding(subject: Subject, sample: Sample) -> Outcome:
    """Write other tokens and positions into the padding of a batch and compare loss and gradient."""
    batch = sample.some
    padding = int((batch.trees.segment < 0).sum())
    if not padding:
        return skipped(CHECK, f"the rows of these trees have no padding (layout {subject.batching.layout})")
    clean = measure_slope(subject, [batch])
    dirty = measure_slope(subject, [replace(batch, trees=with_garbage(batch.trees, _vocabulary(subject)))])
    loss = abs(dirty.loss - clean.loss) / max(abs(clean.loss), 1.0)
    gradient = clean.distance(dirty)
    told = f"{padding} padded places: loss moves by {loss:.0e}, gradient by {gradient:.0e} (relative)"
    if loss <= subject.tolerance and gradient <= subject.tolerance:
        return made(CHECK, told)
    message = f"Other tokens in padding move the loss by {loss:.3g} and the gradient by {gradient:.3g} (relative)."
    remedy = "Padding leaks into the loss: look at the attention mask, or at how the architecture uses it."
    evidence = {"loss": loss, "gradient": gradient, "padding": padding}
    return made(CHECK, told, [Finding("padding-leak", "fatal", 0, message, remedy, evidence, REFERENCE)])


def with_garbage(trees: TokenTrees, vocabulary: int) -> TokenTrees:
    """The same trees with tokens and positions in the padding that are no padding's."""
    nothing, places = trees.segment < 0, torch.arange(trees.tokens.numel(), device=trees.tokens.device)
    places = places.view_as(trees.tokens)
    return replace(
        trees,
        tokens=torch.where(nothing, (7 * places + 5) % vocabulary, trees.tokens),
        positions=torch.where(nothing, places % trees.tokens.shape[1], trees.positions),
    )


def _vocabulary(subject: Subject) -> int:
    return int(subject.policy.get_input_embeddings().weight.shape[0])
