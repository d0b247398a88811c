"""The program itself, in a process of its own, stopped with real signals in the middle of its work."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_lab import Lab, outcome

from trueup.cli.main import main
from trueup.models import hub

STEPS = 200


def arguments(lab: Lab, out: Path, *more: str) -> list[str]:
    optim = ["--optim.steps", str(STEPS), "--optim.batch_size", "4", "--optim.learning_rate", "1e-3"]
    online = ["--rollout.prompts_per_rollout", "6", "--rollout.decoding.max_new_tokens", "6"]
    common = ["--model", lab.model, "--data", lab.prompts__jsonl, "--reward-model", lab.scorer, "--run.threads", "1"]
    common += ["--run.on_fatal", "continue"]  # so many steps at such a rate go far from the start
    return ["grpo", *common, "--grpo.group_size", "2", *optim, *online, "--out", str(out), *more]


def start(lab: Lab, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trueup", *arguments(lab, out, *more)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_steps(process: subprocess.Popen[str], out: Path, steps: int) -> None:
    """Until the journal has so many lines; fails if the process ends or a minute passes."""
    journal, began = out / "metrics.jsonl", time.monotonic()
    while not journal.exists() or journal.read_bytes().count(b"\n") < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 60
        time.sleep(0.002)


@pytest.fixture(scope="module")
def undisturbed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(arguments(lab, out)) == 0
    return out


def test_ctrl_c_and_resume(lab: Lab, undisturbed: Path, tmp_path: Path) -> None:
    process = start(lab, tmp_path / "run")
    wait_for_steps(process, tmp_path / "run", 10)
    process.send_signal(signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130 and said == ""
    last = error.strip().splitlines()[-1]
    assert last.startswith("trueup: stopped after step ") and last.endswith("--resume goes on from there")
    assert "Traceback" not in error and not (tmp_path / "run" / "final").exists()
    steps = [int(line.split()[2]) for line in error.splitlines() if line.startswith("grpo: step ")]
    assert steps and all(step % (STEPS // 20) == 0 for step in steps), "a log file has lines of progress"

    process = start(lab, tmp_path / "run", "--resume")
    said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert said == f"{tmp_path / 'run'}/final\n"
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_resume_needs_the_folder_alone(lab: Lab, undisturbed: Path, tmp_path: Path) -> None:
    process = start(lab, tmp_path / "run")
    wait_for_steps(process, tmp_path / "run", 5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert main(["grpo", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_kill_9_and_resume(lab: Lab, undisturbed: Path, tmp_path: Path) -> None:
    """At a moment that nobody chose, with checkpoints every seven steps."""
    process = start(lab, tmp_path / "run", "--run.save_every", "7")
    wait_for_steps(process, tmp_path / "run", 17)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "run" / "final").exists()
    assert main([*arguments(lab, tmp_path / "run"), "--resume"]) == 0
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_ctrl_c_while_models_load(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "load_causal", lambda *_: signal.raise_signal(signal.SIGINT))
    assert main(arguments(lab, tmp_path / "run")) == 130
    assert capsys.readouterr().err == "trueup: stopped\n"
    assert list(tmp_path.iterdir()) == []


def test_bad_input_of_the_program_itself(lab: Lab, tmp_path: Path) -> None:
    process = start(lab, tmp_path / "run", "--rollout.reference", str(tmp_path / "none"))
    said, error = process.communicate(timeout=60)
    assert process.returncode == 2 and said == ""
    assert error.count("\n") == 1 and error.startswith("trueup: ") and "no such model" in error
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_breaks_says_so_and_keeps_what_it_measured(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers that are not finite are the run's failure, not the input's: exit code 1, and no ``final/``."""
    broken = ["--optim.learning_rate", "1e30", "--optim.schedule", "constant", "--optim.warmup", "0"]
    assert main(arguments(lab, tmp_path / "run", *broken)) == 1
    error = capsys.readouterr().err
    told = re.match(r"trueup: step (\d+): .* not finite", error.splitlines()[-1])
    assert told, error
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b"\n") == int(told[1]) - 1
    assert not (tmp_path / "run" / "final").exists()


def test_results_go_to_stdout_and_talk_to_stderr(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(lab, tmp_path / "run", "--json", "--optim.steps", "3")) == 0
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert summary["folder"] == str(tmp_path / "run") and summary["steps"] == 3 and "loss" in summary
    assert "prompts.jsonl: 24 rows" in said.err and "3/3" in said.err
