"""Is what lies in ``final/`` what was trained? The files are read back and compared, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueup.health.findings import Finding
from trueup.models import hub


def saved_findings(model: Any, final: Path) -> list[Finding]:
    """Compare the weights in memory with those that were written; names that only one side has are not judged."""
    different, compared = hub.saved_otherwise(model, final)
    if not different:
        return []
    message = (
        f"{len(different)} of {compared} tensors in {final.name}/ are not those that were trained: {different[0]}."
    )
    remedy = (
        "Do not use it: what was evaluated is not what was trained. Look at what saves, merges or rounds the weights."
    )
    evidence = {"different": len(different), "tensors": compared}
    return [Finding("saved-otherwise", "fatal", 0, message, remedy, evidence, "probe P14; F130, F131")]
