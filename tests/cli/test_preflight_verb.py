"""``trueup preflight``: which method a file is for, what is printed, which exit code, and that nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from trueup.cli.main import main
from trueup.config.schema import RECIPES

if TYPE_CHECKING:
    from tiny_lab import Lab


@pytest.fixture
def config(lab: Lab, tmp_path: Path) -> Path:
    """Settings of a DPO run, as ``configs/dpo.yaml`` opens."""
    import tiny_lab

    _, values = tiny_lab.settings(lab)["dpo"]
    text = yaml.safe_dump({**values, "run": {"out": str(tmp_path / "never"), "threads": 1}})
    path = tmp_path / "dpo.yaml"
    path.write_text(f"# trueup dpo --config dpo.yaml\n{text}", encoding="utf-8")
    return path


def test_a_sound_run(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["preflight", "--config", str(config)]) == 0
    printed = capsys.readouterr()
    assert "direction of a tiny step" in printed.out and "preflight: " in printed.out
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before, "something was written"


def test_json_and_out_have_the_same_report(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "kept" / "report.json"
    assert main(["preflight", "--config", str(config), "--json", "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.read_text(encoding="utf-8"))
    assert report["method"] == "dpo"
    checks = {check["check"]: check for check in report["checks"]}
    assert report["passed"] == sum(check["status"] == "passed" for check in checks.values())
    assert checks["pairs"]["findings"][0]["rule"] == "identical-pairs"
    assert "settings that must matter" in checks, "the verb makes all checks"


def test_a_fatal_finding_has_exit_code_3(lab: Lab, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluation on what was trained on."""
    assert main(["preflight", "--config", str(config), "--data.validation", lab.pairs__jsonl]) == 3
    assert "evaluation-overlap" in capsys.readouterr().err
    assert main(["preflight", "--config", str(config), "--data.validation", lab.held__jsonl]) == 0


def test_from_flags_alone(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", lab.model, "--data", lab.prompts__jsonl, "--reward", lab.scorer]
    sizes = ["--rollout.decoding.max_new_tokens", "6", "--grpo.group_size", "4", "--run.threads", "1"]
    assert main(["preflight", "--method", "grpo", *flags, *sizes]) == 0
    assert "sampler and trainer" in capsys.readouterr().out


@pytest.mark.parametrize("method", list(RECIPES))
def test_a_file_in_configs_says_which_method_it_is_for(method: str) -> None:
    from trueup.cli.preflight import _method_of

    assert _method_of(str(Path(__file__).parents[2] / f"configs/{method}.yaml")) == method


@pytest.mark.parametrize(
    ("sections", "method"),
    [
        ({"preference": {}}, "dpo"),
        ({"preference": {}, "rollout": {}}, "online-dpo"),
        ({"kto": {}}, "kto"),
        ({"orpo": {}}, "orpo"),
        ({"reward": {}}, "reward"),
        ({"ppo": {}, "rollout": {}}, "ppo"),
        ({"rloo": {}, "rollout": {}}, "rloo"),
        ({}, None),
        ({"rollout": {}}, None),
    ],
)
def test_sections_say_which_method_a_file_is_for(
    tmp_path: Path, sections: dict[str, dict[str, str]], method: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    from trueup.cli.preflight import _method_of

    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"model": {}, "data": {}, **sections}), encoding="utf-8")
    if method is None:
        assert main(["preflight", "--config", str(file)]) == 2
        assert "give --method" in capsys.readouterr().err
    else:
        assert _method_of(str(file)) == method


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --config FILE"),
        (["--method", "dqo"], "no training verb"),
        (["--method", "sft", "--preference.beta", "1"], "--preference.beta: sft has no such setting"),
        (["--method", "sft", "--model", "nowhere", "--data", "nothing.jsonl"], "nothing.jsonl"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
