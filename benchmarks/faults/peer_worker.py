"""Asks rldoctor and rlprobe about runs; runs in their environment, where trueup is not. See ``peers.py``.

Reads lines of JSON, each a run as ``{"method": ..., "rows": [...]}``, and answers each with a line of verdicts.
"""

from __future__ import annotations

import json
import math
import sys
from importlib.metadata import version
from typing import Any

from rl_doctor import diagnose
from rl_doctor.detectors.base import Severity
from rl_doctor.ingest.base import run_from_records
from rlprobe.doctor.engine import diagnose_view
from rlprobe.doctor.runview import RunView
from rlprobe.schemas import RunManifest, StepRecord

FIELDS = {
    "reward": "reward_mean",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "zero_variance_group_frac",
    "kl": "kl_mean",
    "entropy": "entropy_mean",
    "clip_ratio/region_mean": "clip_fraction",
    "policy/ratio": "ratio_mean",
    "explained_variance": "value_explained_variance",
    "loss": "loss",
    "learning_rate": "lr",
    "grad_norm": "grad_norm",
    "completions/mean_length": "completion_len_mean",
    "completions/max_length": "completion_len_max",
    "completions/clipped_ratio": "truncation_rate",
    "step_time": "step_time_s",
}
"""Names in the log -> fields of rlprobe's record; those of its own door for TRL, and two of PPO."""

ITS_LEAST = 30
"""Steps below which rlprobe judges nothing."""


def ask_rldoctor(rows: list[dict[str, float]], method: str) -> dict[str, Any]:
    """Warnings and critical findings count as an alarm; checks that were skipped do not count as made."""
    found = diagnose(run_from_records(rows, config={"algorithm": method})).findings
    made = [finding for finding in found if finding.severity is not Severity.SKIPPED]
    by = [finding.detector for finding in made if finding.severity >= Severity.WARNING]
    note = f"{len(made)} of {len(found)} checks could be made"
    return {"alarm": bool(by) if made else None, "by": by, "note": f"rldoctor {version('rldoctor')}: {note}"}


def ask_rlprobe(rows: list[dict[str, float]], method: str) -> dict[str, Any]:
    """Findings of severity warn and critical count as an alarm."""
    view = RunView(RunManifest(run_id="run", created_at="", algorithm=method), [_record(row) for row in rows])
    read = sorted({field for field in FIELDS.values() if view.has(field)})
    by = [finding.signature_id for finding in diagnose_view(view) if finding.severity != "info"]
    short = len(rows) < ITS_LEAST
    note = f"below its {ITS_LEAST} steps" if short else f"read {', '.join(read)}"
    return {"alarm": None if short else bool(by), "by": by, "note": f"rlprobe {version('rlprobe')}: {note}"}


def _record(row: dict[str, float]) -> StepRecord:
    known = {field: row[name] for name, field in FIELDS.items() if name in row and math.isfinite(row[name])}
    parts = {name[8:-5]: v for name, v in row.items() if name.startswith("rewards/") and name.endswith("/mean")}
    odd = sum(not math.isfinite(value) for value in row.values())
    return StepRecord(step=int(row["step"]), reward_components=parts, nan_count=odd, **known)


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        run = json.loads(line)
        tools = {"rldoctor": ask_rldoctor, "rlprobe": ask_rlprobe}
        print(json.dumps({name: ask(run["rows"], run["method"]) for name, ask in tools.items()}), flush=True)


if __name__ == "__main__":
    main()
