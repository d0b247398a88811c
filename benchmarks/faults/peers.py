"""The same runs as others judge them: rldoctor and rlprobe from PyPI, and fixed thresholds on the usual curves.

    python -m venv peers && peers/bin/pip install rldoctor==0.2.0 rlprobe==0.1.0
    export TRUEUP_PEERS=peers/bin/python

The two packages are asked in an environment of their own (``peer_worker.py``), once the run is over, with all of its
metrics under the names that TRL logs them by. Without ``TRUEUP_PEERS`` they are reported as not asked.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any, TypedDict

Row = Mapping[str, float | None]
"""A line of a run's metrics.jsonl: names of docs/metrics.md; null is a number that is not finite."""

PACKAGES = ("rldoctor", "rlprobe")
WATCHERS = ("thresholds", "nan-or-flat")
TOOLS = (*PACKAGES, *WATCHERS)

ONLINE = frozenset({"ppo", "grpo", "rloo", "online-dpo"})
END = 20
"""Steps at the end of a run that a watcher looks at."""

_NAMES = {"kl/policy_reference_k3": "kl", "val/explained_variance": "explained_variance"}
"""Ours -> theirs, where the names differ for the same quantity."""

_NOT_GIVEN = frozenset({"policy/approxkl"})
"""rldoctor takes it for a KL from the reference, which it is not."""


class Verdict(TypedDict):
    """What a tool says of a run.

    ``alarm``: is something wrong with it? None where the tool could not judge it.
    ``by``: its names of what it found. ``note``: what it could judge, or why it could not.
    """

    alarm: bool | None
    by: list[str]
    note: str


def judge(rows: Sequence[Row], method: str) -> dict[str, Verdict]:
    """The verdict of each of ``TOOLS`` on a run that is over.

    Args:
        rows: metrics of every step.
        method: sft, reward, dpo, kto, orpo, online-dpo, ppo, grpo or rloo.
    """
    verdicts = {**_packages(rows, method), "thresholds": thresholds(rows, method), "nan-or-flat": nan_or_flat(rows)}
    return {tool: verdicts[tool] for tool in TOOLS}


def thresholds(rows: Sequence[Row], method: str) -> Verdict:
    """Two curves and rules of thumb: loss and accuracy for methods that learn from a file, else reward and KL."""
    by = _reward_and_kl(rows) if method in ONLINE else _loss_and_accuracy(rows)
    if _is_nan(rows, "loss"):
        by = ["loss is NaN"]
    return {"alarm": bool(by), "by": by, "note": "reward, KL" if method in ONLINE else "loss, accuracy"}


def nan_or_flat(rows: Sequence[Row]) -> Verdict:
    """The generic rule: the loss is NaN, or not lower at the end than at the start."""
    by = ["loss is NaN"] if _is_nan(rows, "loss") else _not_falling(_values(rows, "loss"))
    return {"alarm": bool(by), "by": by, "note": "loss"}


def _loss_and_accuracy(rows: Sequence[Row]) -> list[str]:
    losses = _values(rows, "loss")
    accuracy = _values(rows, "rewards/accuracies") or _values(rows, "accuracy")
    by = _not_falling(losses)
    if losses and median(losses[-END:]) < 0.05:
        by.append("loss below 0.05")
    if accuracy and fmean(accuracy[-END:]) > 0.95:
        by.append("accuracy above 0.95")
    if accuracy and fmean(accuracy[-END:]) < 0.5:
        by.append("accuracy below 0.5")
    return by


def _reward_and_kl(rows: Sequence[Row]) -> list[str]:
    rewards, kl, lengths = (
        _values(rows, name) for name in ("reward", "kl/policy_reference_k3", "completions/mean_length")
    )
    by = []
    if rewards and fmean(_quarter(rewards[::-1])) < fmean(_quarter(rewards)):
        by.append("reward falls")
    if kl and lengths and kl[-1] * lengths[-1] > 10:
        by.append("KL above 10")
    return by


def _not_falling(losses: Sequence[float]) -> list[str]:
    flat = len(losses) > 1 and median(_quarter(losses[::-1])) >= median(_quarter(losses))
    return ["loss does not fall"] if flat else []


def _quarter(values: Sequence[float]) -> Sequence[float]:
    """The first quarter."""
    return values[: max(1, len(values) // 4)]


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [value for row in rows if (value := row.get(name)) is not None and math.isfinite(value)]


def _is_nan(rows: Sequence[Row], name: str) -> bool:
    return any(name in row and ((value := row[name]) is None or not math.isfinite(value)) for row in rows)


def renamed(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Rows under the names of TRL; what the journal writes as null is the NaN that it was."""
    return [
        {_NAMES.get(k, k): math.nan if v is None else v for k, v in row.items() if k not in _NOT_GIVEN} for row in rows
    ]


def _packages(rows: Sequence[Row], method: str) -> dict[str, Verdict]:
    if not rows:  # stopped before its first step: there is no log to read
        return {tool: {"alarm": None, "by": [], "note": "no log"} for tool in PACKAGES}
    worker = _worker()
    if worker is None:
        return {tool: {"alarm": None, "by": [], "note": "not asked: TRUEUP_PEERS is not set"} for tool in PACKAGES}
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(json.dumps({"method": method, "rows": renamed(rows)}) + "\n")
    worker.stdin.flush()
    return json.loads(worker.stdout.readline())


@cache
def _worker() -> subprocess.Popen[str] | None:
    """One process answers for all runs: starting it takes longer than judging."""
    python = os.environ.get("TRUEUP_PEERS")
    if not python:
        return None
    script = str(Path(__file__).with_name("peer_worker.py"))
    worker: subprocess.Popen[Any] = subprocess.Popen(
        [python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(worker.terminate)
    return worker
