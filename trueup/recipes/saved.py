"""Is what lies in ``final/`` what the last step left? Memory is compared with that, and the files with memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueup.health.findings import Finding
from trueup.models import hub
from trueup.runtime import fingerprint


def saved_findings(model: Any, final: Path, left: Mapping[str, int]) -> list[Finding]:
    """Compare what the last step left, what is in memory after saving, and what was written.

    Args:
        model: the model that was saved.
        final: where it was written.
        left: checksums of its tensors after the last step (`fingerprint.checksums`). Names that only one side has, as
            after adapters were merged, are not judged.
    """
    held = fingerprint.checksums({name: value for name, value in model.state_dict().items() if name in left})
    moved = [name for name, value in held.items() if value != left[name]]
    written, compared = hub.saved_otherwise(model, final)
    different = [*written, *(name for name in moved if name not in written)]
    if not different:
        return []
    how = "saving has changed them" if moved else "the files hold others"
    message = (
        f"{len(different)} of {max(compared, len(held))} tensors in {final.name}/ are not those that were trained: "
        f"{different[0]}; {how}."
    )
    remedy = (
        "Do not use it: what was evaluated is not what was trained. Look at what saves, merges or rounds the weights."
    )
    evidence = {"different": len(different), "tensors": max(compared, len(held)), "changed_by_saving": len(moved)}
    return [Finding("saved-otherwise", "fatal", 0, message, remedy, evidence, "probe P14; F130, F131")]
