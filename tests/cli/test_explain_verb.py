"""``trueup explain`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_lab import Lab, run_variant

from trueup.cli.main import main


def test_tables_for_people_json_for_machines_and_the_plan_on_stderr(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run_variant(lab, "sft", run)
    common = ["explain", str(run), "--seeds", "2", "--only", "learning_rate", "--steps", "4"]
    assert main([*common, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads((run / "explain/explain.json").read_text(encoding="utf-8"))
    assert "plan: 2 arms of sft" in said.err and "about 1 minutes" in said.err
    assert "4/4 learning_rate, replicate 2: held-out loss" in said.err

    assert main(common) == 0
    said = capsys.readouterr()
    assert "learning rate 0.003 → 0.001" in said.out and "explain.json" in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "is not a run folder"),
        (["nowhere", "--seeds", "1"], "--seeds must be at least 2"),
        (["nowhere", "--reference", "a", "--sft", "b"], "not allowed with"),
        (["nowhere", "--step", "3"], "did you mean '--steps'"),
    ],
)
def test_refusals_are_one_line_with_exit_code_two(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""
