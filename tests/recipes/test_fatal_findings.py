"""A fatal finding stops a run at a checkpoint, or before its first step; it can go on regardless, to the same end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_lab import OPTIM, Lab, Listener, journal, outcome, run_config, run_variant, settings

import trueup.recipes.preference as recipe
from trueup.config.load import read_yaml
from trueup.errors import GateError
from trueup.health.findings import Finding

STEPS = 26
FATAL = Finding("step0-identity", "fatal", 0, "The reference is not the start.", "Look at it.", {"difference": 1.0})


def same_every_time(lab: Lab) -> tuple[str, dict[str, Any]]:
    """A run whose samples are all alike: from the fifth rollout on, rule G02 is fatal."""
    verb, values = settings(lab)["grpo"]
    rollout = {**values["rollout"], "decoding": {"max_new_tokens": 6, "temperature": 0.01}}
    return verb, {**values, "optim": {**OPTIM, "steps": STEPS}, "rollout": rollout}


def test_a_fatal_finding_stops_the_run_at_a_checkpoint_from_which_it_can_go_on(lab: Lab, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_config(*same_every_time(lab), whole, on_fatal="continue")
    voice = Listener()
    with pytest.raises(GateError, match=r"stopped after step 20 of 26 .*dead-groups.*--run\.on_fatal continue"):
        run_config(*same_every_time(lab), stopped, voice)
    assert [path.name for path in (stopped / "checkpoints").iterdir()] == ["step-20"]
    assert not (stopped / "final").exists() and len(journal(stopped / "metrics.jsonl")) == 20
    assert any("fatal [dead-groups]" in line for line in voice.said)

    with pytest.raises(GateError, match="stopped after step 20"):  # the finding still stands
        run_config(*same_every_time(lab), stopped, resume=True)
    assert (stopped / "checkpoints" / "step-20").exists()

    run_config(*same_every_time(lab), stopped, resume=True, on_fatal="continue")
    assert outcome(stopped) == outcome(whole)
    assert read_yaml(str(stopped / "config.yaml"))["run"]["on_fatal"] == "continue"
    rules = [(row["rule"], row["severity"]) for row in journal(whole / "findings.jsonl")]
    assert ("dead-groups", "fatal") in rules and len(rules) == len(set(rules))


def test_a_run_stopped_at_its_last_step_is_finished_by_going_on(lab: Lab, tmp_path: Path) -> None:
    verb, values = same_every_time(lab)
    values = {**values, "optim": {**values["optim"], "steps": 18}}  # the last look is after the last step
    with pytest.raises(GateError, match="step 18 of 18"):
        run_config(verb, values, tmp_path / "run")
    run_config(verb, values, tmp_path / "run", resume=True, on_fatal="continue")
    run_config(verb, values, tmp_path / "whole", on_fatal="continue")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_what_is_fatal_before_the_first_step_stops_there(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = recipe.train
    monkeypatch.setattr(recipe, "train", lambda *args, early=(), **rest: train(*args, early=[*early, FATAL], **rest))
    voice = Listener()
    with pytest.raises(GateError, match=r"before the first step.*step0-identity"):
        run_variant(lab, "dpo", tmp_path / "run", voice)
    assert voice.began is None and journal(tmp_path / "run" / "metrics.jsonl") == []
    rows = [json.loads(line) for line in (tmp_path / "run" / "findings.jsonl").read_text().splitlines()]
    assert {"step": 0, **FATAL.row()} in rows
    run_variant(lab, "dpo", tmp_path / "run", resume=True, on_fatal="continue")
    assert (tmp_path / "run" / "final").exists()
    assert [json.loads(line) for line in (tmp_path / "run" / "findings.jsonl").read_text().splitlines()] == rows


def test_the_monitor_knows_the_method_and_the_settings(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule can only use what the run tells it: here beta, and the number of steps that follows from the data."""
    import trueup.recipes.watch as watch

    seen: list[Any] = []
    monitor = watch.Monitor
    monkeypatch.setattr(watch, "Monitor", lambda *args: seen.append(args) or monitor(*args))
    verb, values = settings(lab)["dpo"]
    values = {**values, "optim": {"batch_size": 8}, "preference": {"beta": 0.3}}
    run_config(verb, values, tmp_path / "run")
    method, known = seen[0][2:4]
    assert method == "dpo" and known["preference.beta"] == 0.3 and known["optim.steps"] == 3
    assert known["run.on_fatal"] == "stop" and known["optim.max_grad_norm"] == 1.0
