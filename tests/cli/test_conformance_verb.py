"""``trueup conformance`` on the examples: what it says, what it prints for machines, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from refusals import one_line

from trueup.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"


def verdict(capsys: pytest.CaptureFixture[str], function: str, kind: str, *more: str) -> tuple[int, dict]:
    code = main(["conformance", str(EXAMPLES / function), "--kind", kind, "--json", *more])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("function", "kind"), [("get_logps", "token_logps"), ("dpo_loss", "dpo_loss")])
def test_the_right_example_conforms(capsys: pytest.CaptureFixture[str], function: str, kind: str) -> None:
    code, told = verdict(capsys, f"my_dpo.py:{function}", kind)
    assert code == 0
    assert told["conforms"] and told["faults"] == [] and told["notes"] == []
    assert {check["status"] for check in told["checks"]} <= {"ok", "skipped"}


@pytest.mark.parametrize(
    ("function", "kind", "faults"),
    [
        ("get_logps", "token_logps", ["mask-unshifted"]),
        ("dpo_loss", "dpo_loss", ["sign", "beta-outside"]),
        ("stable", "dpo_loss", ["gradient-saturates"]),
        ("logged", "dpo_loss", ["logged-margin-raw"]),
        ("grpo_loss", "grpo_loss", ["grpo-missing-minus"]),
    ],
)
def test_the_wrong_examples_are_named(
    capsys: pytest.CaptureFixture[str], function: str, kind: str, faults: list[str]
) -> None:
    code, told = verdict(capsys, f"my_wrong_dpo.py:{function}", kind)
    assert code == 3
    assert told["faults"] == faults and not told["conforms"]
    named = [fault for check in told["checks"] if check["status"] == "fault" for fault in check["faults"]]
    assert all(fault["wrong"] and fault["remedy"] for fault in named)


def test_the_note_on_ties_is_told_beside_the_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ties-count-as-right" in verdict(capsys, "my_wrong_dpo.py:logged", "dpo_loss")[1]["notes"]


def test_people_are_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", str(EXAMPLES / "my_wrong_dpo.py:get_logps"), "--kind", "token_logps"]) == 3
    said = capsys.readouterr()
    assert said.err == ""
    assert "What to change: mask[:, 1:]" in said.out and "It does not conform: mask-unshifted." in said.out


def test_a_stated_call_and_a_convention(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["--call", "f(logits, ids, mask)", "--expect", "convention=sums"]
    code, told = verdict(capsys, "my_dpo.py:get_logps", "token_logps", *call)
    assert code == 0 and told["bound"] == "as stated" and told["call"] == "f(logits, ids, mask)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["my_dpo.py:dpo_los", "--kind", "dpo_loss"], "did you mean 'dpo_loss'?"),
        (["my_dpo.py", "--kind", "dpo_loss"], "expected MODULE:FUNCTION"),
        (["nothing.py:f", "--kind", "dpo_loss"], "no such file"),
        (["my_dpo.py:dpo_loss", "--kind", "dpo"], "invalid choice: 'dpo'"),
        (["my_dpo.py:dpo_loss", "--kind", "dpo_loss", "--call", "f(policy_chosen"], "is not an expression"),
        (["my_dpo.py:dpo_loss", "--kind", "dpo_loss", "--expect", "mean"], "expected NAME=VALUE"),
        (["my_dpo.py:dpo_loss", "--kind", "token_logps"], "state the call"),
    ],
)
def test_what_cannot_be_called_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert words in one_line(capsys, ["conformance", str(EXAMPLES / arguments[0]), *arguments[1:]])


def test_a_module_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "somebodys_losses.py").write_text("def loss(chosen, rejected):\n    return 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = one_line(capsys, ["conformance", "somebodys_losses:loss", "--kind", "reward_loss"])
    assert "somebodys_losses.py:2: the function failed: ZeroDivisionError" in said
    assert "no such module" in one_line(capsys, ["conformance", "nobodys_losses:loss", "--kind", "reward_loss"])
