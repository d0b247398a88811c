"""Faults that are put into real runs of a small laboratory are noticed, and healthy runs are not accused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from faults.catalogue import FAULTS, Case
from faults.lab import Lab, Outcome, Size, prepare, run_once
from faults.score import score

SMALL = Size(demonstrations=480, pairs=200, heldout=40, prompts=40, half=6, start=24, reward=4)
SHORT = {"optim.steps": 4, "data.limit": 80, "run.eval_every": 4}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return prepare(tmp_path_factory.mktemp("lab"), SMALL)


@pytest.fixture(scope="module")
def twin(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_once(lab, "dpo", 0, tmp_path_factory.mktemp("twin"), SHORT)


def injected(lab: Lab, name: str, folder: Path) -> tuple[Case, Outcome]:
    number = next(n for n, fault in enumerate(FAULTS) if fault.name == name and "dpo" in fault.methods)
    case = Case(number, "dpo", FAULTS[number].strengths[-1])
    settings = {**SHORT, **case.fault.settings}
    return case, run_once(lab, "dpo", 0, folder, settings, lambda stage: case.fault.inject(stage, case.strength))


def test_a_healthy_run_ends_with_a_model_and_nobody_is_accused(twin: Outcome) -> None:
    assert not twin.error and not twin.crash
    assert len(twin.metrics) == 4 and set(twin.measures) == {"gold", "pairs"}
    assert [finding for finding in twin.findings if finding["severity"] != "note"] == []


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("mask shifted by one", "logps-misaligned"),
        ("store with noise", "step0-identity"),
        ("loss negated", "wrong-direction"),
        ("dropout in training", "dropout-on"),
        ("everything frozen", "gradient-lost"),
    ],
)
def test_a_fault_is_noticed_before_the_first_step(
    lab: Lab, twin: Outcome, tmp_path: Path, name: str, rule: str
) -> None:
    case, outcome = injected(lab, name, tmp_path)
    row = score(case, outcome, [twin], [twin])
    found = {finding["rule"] for finding in outcome.findings}
    assert not row["crash"]
    assert row["detected"] and row["at_step"] == 0
    assert rule in found or outcome.error


def test_what_a_twin_has_too_is_no_detection(lab: Lab, twin: Outcome) -> None:
    finding = {"rule": "saturation", "severity": "warning", "first_step": 3, "family": "objective"}
    case = Case(0, "dpo", 1.0)
    alike = Outcome("dpo", 0, [finding], measures={"gold": 1.0})
    graver = Outcome("dpo", 0, [{**finding, "severity": "fatal"}], measures={"gold": 1.0})
    assert not score(case, alike, [alike], [alike])["detected"]
    assert score(case, graver, [alike], [alike])["by_severity"] == "fatal"


def test_the_code_is_itself_again_after_an_injection(lab: Lab, twin: Outcome, tmp_path: Path) -> None:
    injected(lab, "mask shifted by one", tmp_path / "fault")
    again = run_once(lab, "dpo", 0, tmp_path / "again", SHORT)
    clockless = [{k: v for k, v in row.items() if k != "step_time"} for row in again.metrics]
    assert clockless == [{k: v for k, v in row.items() if k != "step_time"} for row in twin.metrics]
