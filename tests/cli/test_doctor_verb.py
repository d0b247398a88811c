"""``trueup doctor`` as its user meets it: what is said, on which stream, with which exit code, and how soon."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trueup.cli.main import main

ROOT = Path(__file__).parents[2]
TRL = ROOT / "tests/health/trl_dpo_trainer_state.json"


def healthy(folder: Path) -> Path:
    """A real log of TRL, in an output folder."""
    (folder / "checkpoint-30").mkdir(parents=True)
    (folder / "checkpoint-30/trainer_state.json").write_bytes(TRL.read_bytes())
    return folder


def collapsed(folder: Path, margin: float = 0.0) -> Path:
    """A GRPO log in which most responses are cut off (a warning), or whose loss is NaN (fatal)."""
    rows = [
        {"step": i, "reward": 1.0 + 0.1 * (i % 3), "loss": margin, "frac_reward_zero_std": 0.0}
        | {"completions/mean_length": 9.0, "completions/clipped_ratio": 0.8, "my/count": i}
        for i in range(1, 31)
    ]
    path = folder / "grpo.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def told(capsys: pytest.CaptureFixture[str], *command: str | Path) -> tuple[int, str, str]:
    code = main(["doctor", *map(str, command)])
    shown = capsys.readouterr()
    return code, shown.out, " ".join(shown.err.split())


def document(capsys: pytest.CaptureFixture[str], *command: str | Path) -> tuple[int, dict[str, Any]]:
    code, out, err = told(capsys, *command, "--json")
    assert err == ""
    return code, json.loads(out)


def test_a_healthy_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, healthy(tmp_path / "out"))
    assert (code, out) == (0, "")
    for part in (
        "names of TRL",
        "dpo",
        "30 logged steps, 1 to 30",
        "Nothing was found",
        "found in order",
        "checkpoint-30",
    ):
        assert part in err
    assert "margin/raw_per_token: margin-per-token" in err  # what could not be judged, and for want of what
    assert "ties count as wrong" in err


@pytest.mark.parametrize(("loss", "strict", "code"), [(0.0, False, 0), (0.0, True, 3), (math.nan, False, 3)])
def test_exit_codes(loss: float, strict: bool, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = collapsed(tmp_path, loss)
    assert told(capsys, path, *(["--strict"] if strict else []))[0] == code


def test_a_finding_says_what_since_when_why_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = told(capsys, collapsed(tmp_path))
    assert "warning: truncation, since step" in err and "80%" in err and "What to do:" in err
    assert "Unknown" in err and "my/count" in err and "--map" in err


def test_results_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = document(capsys, collapsed(tmp_path), healthy(tmp_path / "out"))
    first, second = found["logs"]
    assert code == 0 and [f["rule"] for f in first["findings"]] == ["truncation"]
    assert (first["method"], first["unknown"], first["steps"]) == (
        "grpo",
        ["my/count"],
        {"first": 1, "last": 30, "logged": 30},
    )
    assert second["findings"] == [] and second["renamed"]["rewards/accuracies"]["ours"] == "rewards/accuracies"
    assert first["unjudged"]["negative-kl"] == [["kl/policy_reference_k1"]]
    assert (found["together"], found["scores"]["arms"]) == ([], [])


def test_every_method_that_can_be_trained_can_be_told() -> None:
    from trueup.cli.doctor import METHODS
    from trueup.config.schema import RECIPES
    from trueup.health.readers import trainer_state

    assert set(METHODS) == trainer_state.METHODS == RECIPES.keys()


def test_the_user_settles_what_was_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--method", "rloo", "--map", "my/count=kl/policy_reference_k1", "--set", "rloo.kl_coef=0.1"]
    _, found = document(capsys, collapsed(tmp_path), *given)
    (log,) = found["logs"]
    assert (log["method"], log["settings"], log["unknown"]) == ("rloo", {"rloo.kl_coef": 0.1}, [])
    assert "negative-kl" in log["quiet"]


def test_numbers_that_are_none_are_json_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": Infinity}\n', encoding="utf-8")
    code, out, _ = told(capsys, path, "--json")
    assert code == 3 and "NaN" not in out and "Infinity" not in out


def test_tables_of_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": str(i), "sft": 1.0 * i, "dpo": 1.0 * i + (-1) ** i} for i in range(8)]
    (tmp_path / "all.json").write_text(json.dumps({"per_prompt": rows, "ranking": ["dpo", "sft"]}))
    code, _, err = told(capsys, tmp_path / "all.json")
    assert code == 0 and "8 common prompts" in err and "warning: unestablished-differences" in err


@pytest.mark.parametrize(
    ("given", "told_in"),
    [
        (["--map", "my/cuont=reward"], "did you mean 'my/count'?"),
        (["--map", "reward"], "--map FOREIGN=OURS"),
        (["--set", "beta=0.1"], "preference.beta"),
        (["--method", "dop"], "--method"),
    ],
)
def test_wrong_arguments(given: list[str], told_in: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, collapsed(tmp_path), *given)
    assert (code, out) == (2, "") and told_in in err


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, tmp_path / "nowhere")[0] == 2
    assert told(capsys, tmp_path)[0] == 2


PROBE = """
import sys
from trueup.cli.main import main
main(["doctor", sys.argv[1]])
heavy = {"torch", "transformers", "scipy", "pandas", "pyarrow", "pydantic"} & set(sys.modules)
raise SystemExit(f"loads {sorted(heavy)}" if heavy else 0)
"""


def test_it_answers_within_a_second_and_loads_nothing_heavy(tmp_path: Path) -> None:
    path, seconds = healthy(tmp_path / "out"), []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 1, seconds
