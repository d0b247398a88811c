"""One job in a worker: what it leaves, also when it is stopped and called again."""

from __future__ import annotations

import json
import queue
import time
from pathlib import Path
from typing import Any

import pytest

from trueup.errors import Interrupted
from trueup.study import execute, jobs
from trueup.study.plan import DONE, Job


def test_the_seconds_of_a_job_are_those_of_all_its_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[float, bool]] = []

    def nap(study: Path, out: Path, voice: Any) -> None:
        assert list(out.iterdir()) == []  # a recipe that was stopped before it began must find its folder empty
        seconds, stopped = calls.pop(0)
        time.sleep(seconds)
        if stopped:
            raise Interrupted("stopped by the user")

    monkeypatch.setitem(jobs.CALLS, "nap", nap)  # type: ignore[arg-type]
    monkeypatch.setattr(execute, "_EVENTS", queue.Queue())
    for number, planned in enumerate(([(0.2, True), (0.2, True), (0.0, False)], [(0.0, False)])):
        job = Job(f"sft/seed-{number}", "sft", "a nap", (), "nap")
        calls += planned
        while not (tmp_path / job.id / DONE).exists():
            try:
                execute._work(job, tmp_path)
            except Interrupted:
                assert not (tmp_path / job.id / DONE).exists()
    first, second = (json.loads((tmp_path / f"sft/seed-{n}" / DONE).read_text())["seconds"] for n in (0, 1))
    assert first >= 0.4
    assert second < first  # jobs do not pay for each other
