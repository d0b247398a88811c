"""Does a resumed run go on from where it stopped? Memory is compared with what stood there at the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trueup.health.findings import Finding
from trueup.runtime.undisturbed import undisturbed
from trueup.train.protocols import Source
from trueup.train.seal import Seal, rows_drawn, seal_of
from trueup.train.step import TrainState

REFERENCE = "F126, F127, F130, F132 of the catalogue"
_TOLD: Mapping[str, str] = {
    "step": "the number of steps made",
    "rate": "the learning rate of the next step",
    "weights": "the weights",
    "moments": "the optimiser's moments",
    "source": "the state of the source (totals, a rollout in use, companions)",
    "rows": "the rows of the next step",
}


def resumed_findings(saved: Mapping[str, Any] | None, state: TrainState, source: Source) -> list[Finding]:
    """Compare what is about to be trained with the seal of the checkpoint it came from.

    Everything is taken from the objects that the next step will use, after they were restored; rows by drawing the
    step once, of which the source is put back. A checkpoint without a seal is not judged.
    """
    if saved is None:
        return []
    with undisturbed():
        found = seal_of(state, source, rows_drawn(state, source))
    wrong = Seal(**saved).otherwise(found)
    state_lost = [name for name in wrong if name != "rows"]
    findings = [_rows_again(saved["step"])] if "rows" in wrong else []
    return [*findings, *([_state_lost(saved["step"], state_lost)] if state_lost else [])]


def _rows_again(step: int) -> Finding:
    message = f"The run goes on after step {step} with other rows than those that come next in its order of the data."
    remedy = "Some rows would be seen twice and others never: continue the order with the step, not from its start."
    evidence = {"step": step, "different": ["rows"]}
    return Finding("resumed-elsewhere", "fatal", step + 1, message, remedy, evidence, REFERENCE)


def _state_lost(step: int, wrong: Sequence[str]) -> Finding:
    told = "; ".join(_TOLD[name] for name in wrong)
    message = f"What was restored after step {step} is not what stood there at the checkpoint: {told}."
    remedy = "Do not go on: what restores the run loses or replaces it. The checkpoint itself is left as it is."
    evidence = {"step": step, "different": list(wrong)}
    return Finding("resumed-otherwise", "fatal", step + 1, message, remedy, evidence, REFERENCE)
