"""What all benchmarks share: the environment they record, and where their results go."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from trueup.runtime.folder import environment, now

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, device: str, cases: list[dict[str, Any]]) -> Path:
    """Write ``results/NAME.DEVICE.json`` with the command, date, versions and machine beside the cases."""
    facts = environment()
    result = {
        # Where things lie on this machine is nobody's business: a path is written as its last part.
        "command": " ".join(["python", *(Path(part).name if Path(part).is_absolute() else part for part in sys.argv)]),
        "date": now(),
        "versions": {key: value for key, value in facts.items() if key not in ("machine", "commit")},
        "commit": facts["commit"],
        "machine": facts["machine"],
        "cases": cases,
    }
    path = RESULTS / f"{name}.{device}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path
