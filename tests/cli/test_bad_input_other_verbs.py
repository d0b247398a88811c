"""Bad input of the verbs that do not train: evaluation, report, study."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import foreign, one_line
from tiny_lab import CONTEXT, Lab

from trueup.models import hub


def test_evaluation(lab: Lab, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(model: str, *more: str) -> str:
        return one_line(capsys, ["eval", model, "--out", str(tmp_path / "out"), "--threads", "1", *more])

    assert "did you mean 'sixteen'" in refused(lab.model, "--suite", "sixten")
    assert "no such file" in refused(lab.model, "--suite", str(files / "none.jsonl"))
    assert "no such model" in refused(str(files / "none"), "--suite", lab.prompts__jsonl)
    assert "cannot be written" in refused(lab.model, "--suite", lab.prompts__jsonl, "--out", "/proc/trueup-out")
    assert "not a reward model" in refused(lab.model, "--suite", lab.prompts__jsonl, "--reward-model", lab.model)
    other = foreign(files, hub.new_causal)
    assert "another vocabulary" in refused(lab.model, "--suite", lab.prompts__jsonl, "--reference", other)
    assert "--draws" in refused(lab.model, "--suite", lab.prompts__jsonl, "--draws", "0")
    assert "--limit" in refused(lab.model, "--suite", lab.prompts__jsonl, "--limit", "0")
    crowded = refused(lab.model, "--suite", lab.prompts__jsonl, "--max-new-tokens", str(CONTEXT))
    assert "prompts.jsonl:1" in crowded and "smaller --max-new-tokens" in crowded
    assert "--data" not in crowded  # which this verb does not have
    assert "invalid int value" in refused(lab.model, "--suite", lab.prompts__jsonl, "--draws", "two")
    assert "did you mean '--draws'" in refused(lab.model, "--suite", lab.prompts__jsonl, "--drws", "2")
    assert not (tmp_path / "out").exists()


def test_report(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "study.json" in one_line(capsys, ["report", str(files)])
    assert list(files.iterdir()) == []


STUDY = """
name: tiny
question: does it work?
world: errands
arms:
  - {name: a, label: A, method: dpo, setting: tuned}
"""


@pytest.mark.parametrize(
    ("text", "must_say"),
    [
        ("name: x\n", "'question' is missing"),
        (STUDY.replace("question", "qestion"), "did you mean 'question'"),
        (STUDY.replace("dpo", "dpoo"), "arms.0.method"),
        (STUDY.replace("tuned}", "tuned, config: {optim: {stepps: 3}}}"), "did you mean 'optim.steps'"),
        (STUDY.replace("tuned}", "tuned, tune: {key: preference.bta, values: [1, 2]}}"), "'preference.beta'"),
        (STUDY + "  - {name: a, label: B, method: dpo, setting: tuned}\n", "arm names must differ"),
        (STUDY.replace("world:", "  world:"), "line 4"),
        (STUDY.replace("errands", "erands"), "did you mean 'errands'"),
        (STUDY + "seeds: [1, 1]\n", "seeds must differ"),
        (STUDY.replace("tuned}", "tuned, config: {optim: null}}"), "optim"),
    ],
)
def test_study(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, must_say: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text, encoding="utf-8")
    for more in ([], ["--quick"]):
        assert must_say in one_line(capsys, ["study", str(file), "--out", str(tmp_path / "out"), *more])
        assert not (tmp_path / "out").exists()


def test_study_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY, encoding="utf-8")
    assert "--workers" in one_line(capsys, ["study", str(file), "--workers", "0", "--out", str(tmp_path / "out")])
    assert "cannot be written" in one_line(capsys, ["study", str(file), "--out", str(file / "below")])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("mine", encoding="utf-8")
    assert "not a study folder" in one_line(capsys, ["study", str(file), "--out", str(tmp_path / "other")])
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["precious.txt"]
    assert "no such file" in one_line(capsys, ["study", str(tmp_path / "none.yaml")])
