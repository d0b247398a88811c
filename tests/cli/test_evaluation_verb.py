"""``trueup eval`` on a model of small context."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_lab import CONTEXT, Lab

from trueup.cli.main import main


def test_without_a_cap_responses_get_half_of_the_context_and_it_is_said(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    common = ["eval", lab.model, "--suite", lab.prompts__jsonl, "--draws", "4", "--threads", "1", "--json"]
    assert main([*common, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert f"at most {CONTEXT // 2} tokens" in said.err and "--max-new-tokens" in said.err
    items = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    cut = {item["length"] for item in items if item["truncated"]}
    assert cut == {CONTEXT // 2}  # some run into the cap, and that is where it is
    assert json.loads(said.out) == json.loads((out / "summary.json").read_text())

    assert main([*common, "--max-new-tokens", "3", "--limit", "2"]) == 0
    assert capsys.readouterr().err == ""
