"""Where a study's time and memory went, stage by stage."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

from trueup.study.plan import DONE

_STAGES = ("world", "sft", "pairs", "reward", "tuning", "arms", "evaluations", "untrained")


ELAPSED = "elapsed"
"""Folder of a study that keeps the seconds of each job, calls that did not finish it included."""


def peak_memory_gb() -> float:
    """The largest memory this process has held so far, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def add_elapsed(folder: Path, seconds: float) -> float:
    """Add a call's wall seconds to those of the calls before it (a study and a job may be stopped and gone on with).

    A call that is killed outright adds nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "elapsed.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0.0
    aside = path.with_suffix(".part")  # a full disk must not leave half a number
    aside.write_text(json.dumps(before + seconds), encoding="utf-8")
    aside.replace(path)
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
