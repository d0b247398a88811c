"""Where a study's time and memory went, stage by stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trueup.study.execute import peak_memory_gb
from trueup.study.plan import DONE

_STAGES = ("world", "sft", "pairs", "reward", "tuning", "arms", "evaluations", "untrained")


def add_elapsed(folder: Path, seconds: float) -> float:
    """Add this call's wall seconds to those of the calls before it (a study may be stopped and gone on with)."""
    path = folder / "elapsed.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0.0
    path.write_text(json.dumps(before + seconds), encoding="utf-8")
    return before + seconds


def stage_seconds(folder: Path, total: float) -> dict[str, Any]:
    """Seconds of all jobs of a stage added up (jobs run side by side), and the largest memory of a job's process.

    ``peak_memory_gb`` of the stage ``parent`` is this process's own: what the whole study held at most is less than
    the parent plus one largest job for each worker.
    """
    stages = []
    for stage in _STAGES:
        facts = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / stage).rglob(DONE)]
        if facts:
            seconds, memory = sum(f["seconds"] for f in facts), max(f["peak_memory_gb"] for f in facts)
            stages.append({"name": stage, "seconds": seconds, "peak_memory_gb": memory})
    stages.append({"name": "parent", "seconds": total, "peak_memory_gb": peak_memory_gb()})
    return {"total": total, "stages": stages}
