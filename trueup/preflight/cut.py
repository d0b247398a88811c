"""One micro-batch or many: the cut of a step is a matter of memory, not of the update."""

from __future__ import annotations

from trueup.health.findings import Finding
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.slope import NOTHING, measure_slope
from trueup.preflight.subject import Sample, Subject
from trueup.train.objectives.preference import PreferenceObjective

CHECK = "micro-batches"
REFERENCE = "probe P7 of the catalogue of silent failures; F43, F98"


def check_cut(subject: Subject, sample: Sample) -> Outcome:
    """Compare the gradient of a step in one micro-batch with that of the same step tree by tree."""
    if isinstance(subject.objective, PreferenceObjective) and subject.objective.loss.couples_batch:
        return skipped(CHECK, f"{subject.objective.loss.name} ranks the pairs of a step, which is one forward pass")
    if len(sample.few) < 2:
        return skipped(CHECK, "one tree cannot be cut")
    whole = measure_slope(subject, [sample.some])
    if not whole.norm > NOTHING:
        return skipped(CHECK, "no gradient to compare")
    parts = measure_slope(subject, [sample.batch([i]) for i in sample.few])
    gap, limit = whole.distance(parts), 10 * subject.tolerance
    told = f"1x{len(sample.few)} against {len(sample.few)}x1: gradients differ by {gap:.0e} (relative)"
    if gap <= limit:
        return made(CHECK, told)
    message = (
        f"The gradient of {len(sample.few)} trees in one micro-batch and of the same trees one by one differ by "
        f"{gap:.3g} (relative); losses {whole.loss:.6g} and {parts.loss:.6g}."
    )
    remedy = "A term is divided by a micro-batch's own count. Count units over the step (Objective.units)."
    evidence = {"relative_difference": gap, "loss_whole": whole.loss, "loss_parts": parts.loss}
    return made(CHECK, told, [Finding("cut-dependent", "fatal", 0, message, remedy, evidence, REFERENCE)])
