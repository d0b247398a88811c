"""A run tells its trackers what it writes to its journals, through stops, failures and resumes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_lab import OPTIM, Lab, Listener, journal, run_variant

import trueup.recipes.bench as bench_module
from trueup.config.load import dump, validate
from trueup.config.schema import RECIPES
from trueup.errors import Interrupted, UserError
from trueup.runtime import tracking
from trueup.runtime.trackers import TRACKERS, Tracked, Tracker


class Notebook:
    """A tracker that writes down what it is told."""

    def __init__(self) -> None:
        self.runs: list[Tracked] = []
        self.rows: list[dict[str, Any]] = []
        self.findings: list[Mapping[str, Any]] = []
        self.endings: list[str] = []

    def open(self, run: Tracked) -> Tracker:
        self.runs.append(run)
        last = run.told if run.identity else None
        return Tracker("n1", "the drawer", last, self.log, self.findings.append, self.endings.append)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows.append({"step": step, **{name: v for name, v in metrics.items() if name != "step_time"}})


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    """A notebook under the name of a tracker."""
    made = Notebook()
    monkeypatch.setitem(TRACKERS, "mlflow", made.open)  # type: ignore[arg-type]
    monkeypatch.setattr(bench_module, "check_trackers", lambda names: None)
    yield made


def ctrl_c(step: int) -> Listener:
    return Listener(lambda now: signal.raise_signal(signal.SIGINT) if now == step else None)


def test_a_tracker_is_told_what_the_journals_hold(lab: Lab, notebook: Notebook, tmp_path: Path) -> None:
    voice = Listener()
    run_variant(lab, "dpo", tmp_path / "run", voice, trackers=["mlflow"], project="demo")
    assert notebook.rows == journal(tmp_path / "run" / "metrics.jsonl")
    assert notebook.findings == journal(tmp_path / "run" / "findings.jsonl") != []
    assert notebook.endings == ["finished"]
    (run,) = notebook.runs
    assert (run.folder, run.project, run.step) == (tmp_path / "run", "demo", 0)
    assert dump(validate(RECIPES["dpo"], run.settings, "")) == (tmp_path / "run" / "config.yaml").read_text()
    assert "tracker mlflow: the drawer" in voice.said


def test_a_resumed_run_goes_on_in_the_same_tracker_run(lab: Lab, notebook: Notebook, tmp_path: Path) -> None:
    """Stopped at step 3; then killed at step 6 after a checkpoint at step 4, so that two steps are made twice."""
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        run_variant(lab, "dpo", out, ctrl_c(3), trackers=["mlflow"])
    assert notebook.endings == ["stopped"]

    def die(step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_variant(lab, "dpo", out, Listener(die), trackers=["mlflow"], resume=True, save_every=4)
    run_variant(lab, "dpo", out, trackers=["mlflow"], resume=True)
    assert [(run.identity, run.step, run.told) for run in notebook.runs] == [(None, 0, 0), ("n1", 3, 3), ("n1", 4, 6)]
    assert [row["step"] for row in notebook.rows] == list(range(1, OPTIM["steps"] + 1))
    assert notebook.rows == journal(out / "metrics.jsonl")
    assert notebook.findings == journal(out / "findings.jsonl")


def test_a_tracker_that_joins_a_resumed_run_is_told_of_its_past(lab: Lab, notebook: Notebook, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        run_variant(lab, "dpo", out, ctrl_c(3))
    run_variant(lab, "dpo", out, trackers=["mlflow"], resume=True)
    assert notebook.rows == journal(out / "metrics.jsonl")
    assert notebook.findings == journal(out / "findings.jsonl") != []


def test_a_run_that_fails_is_closed_as_failed(lab: Lab, notebook: Notebook, tmp_path: Path) -> None:
    def fail(step: int) -> None:
        raise ValueError("broken display")

    with pytest.raises(ValueError, match="broken display"):
        run_variant(lab, "sft", tmp_path / "run", Listener(fail), trackers=["mlflow"])
    assert notebook.endings == ["failed"]


def test_trackers_do_not_change_a_run(lab: Lab, notebook: Notebook, tmp_path: Path) -> None:
    for name, trackers in {"with": ["mlflow"], "without": []}.items():
        run_variant(lab, "sft", tmp_path / name, trackers=trackers)
    one, other = ((tmp_path / name / "final" / "model.safetensors").read_bytes() for name in ("with", "without"))
    assert one == other


def test_a_missing_package_is_refused_before_the_model_is_loaded(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bench_module.hub, "load_tokenizer", lambda *_: pytest.fail("something slow was loaded"))
    with pytest.raises(UserError, match="pip install trackio"):
        run_variant(lab, "sft", tmp_path / "run", trackers=["trackio"])
    assert not (tmp_path / "run").exists()
