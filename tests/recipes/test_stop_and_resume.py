"""Ctrl-C, SIGTERM and kill -9 at many points: the resumed run ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_lab import OPTIM, VARIANTS, Lab, Listener, journal, outcome, run_config, run_variant, settings, write

from trueup.errors import Interrupted, UserError
from trueup.models import hub
from trueup.runtime import checkpoint

Uninterrupted = Callable[[str], Mapping[str, Any]]


def at(step: int, act: Callable[[], Any]) -> Listener:
    """A voice that acts once, after a step."""

    def react(now: int) -> None:
        if now == step:
            act()

    return Listener(react)


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def interrupt(lab: Lab, variant: str, out: Path, step: int, **run: Any) -> None:
    with pytest.raises(Interrupted, match=f"after step {step} of {OPTIM['steps']}"):
        run_variant(lab, variant, out, at(step, ctrl_c), **run)


@pytest.mark.parametrize("step", [1, 2, 4, 7])
@pytest.mark.parametrize("variant", VARIANTS)
def test_ctrl_c_loses_nothing(lab: Lab, uninterrupted: Uninterrupted, variant: str, step: int, tmp_path: Path) -> None:
    """Online methods use a rollout for four steps: these are the first, its middle, its end, and one in the next."""
    interrupt(lab, variant, tmp_path / "run", step)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"step-{step}"]
    assert not (tmp_path / "run" / "final").exists()

    voice = Listener()
    run_variant(lab, variant, tmp_path / "run", voice, resume=True)
    assert voice.began == (OPTIM["steps"], step)
    assert outcome(tmp_path / "run") == uninterrupted(variant)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("variant", ["reward-encoder", "dpo-sampled", "ppo-shared", "grpo-dapo"])
def test_stopped_after_every_single_step(lab: Lab, uninterrupted: Uninterrupted, variant: str, tmp_path: Path) -> None:
    for step in range(1, OPTIM["steps"]):
        interrupt(lab, variant, tmp_path / "run", step, resume=step > 1)
    run_variant(lab, variant, tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == uninterrupted(variant)


def test_terminate_is_ctrl_c(lab: Lab, uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    """A batch system sends SIGTERM before it kills."""
    with pytest.raises(Interrupted):
        run_variant(lab, "grpo", tmp_path / "run", at(3, lambda: signal.raise_signal(signal.SIGTERM)))
    run_variant(lab, "grpo", tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == uninterrupted("grpo")


def test_an_impatient_second_ctrl_c_acts_at_once(lab: Lab, uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    """Nothing is saved then; the run starts again from its last checkpoint, here from none."""
    with pytest.raises(KeyboardInterrupt):
        run_variant(lab, "dpo", tmp_path / "run", at(3, lambda: (ctrl_c(), ctrl_c())))
    voice = Listener()
    run_variant(lab, "dpo", tmp_path / "run", voice, resume=True)
    assert voice.began == (OPTIM["steps"], 0)
    assert outcome(tmp_path / "run") == uninterrupted("dpo")


def test_ctrl_c_at_the_last_step_finishes(lab: Lab, uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    run_variant(lab, "dpo", tmp_path / "run", at(OPTIM["steps"], ctrl_c))
    assert outcome(tmp_path / "run") == uninterrupted("dpo")


def test_the_handlers_of_before_are_put_back(lab: Lab, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    interrupt(lab, "dpo", tmp_path / "run", 2)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def killed(action: Callable[[], Any]) -> None:
    """Run ``action`` in a child process and see to it that the child died of SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(77)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"the child was not killed: {status}"


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("step", "kept"), [(1, 0), (4, 3), (5, 3), (8, 6)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_kill_9_falls_back_to_the_last_checkpoint(
    lab: Lab, uninterrupted: Uninterrupted, variant: str, step: int, kept: int, tmp_path: Path
) -> None:
    """Steps journalled after the checkpoint are made again, and stand in the journal once."""
    killed(lambda: run_variant(lab, variant, tmp_path / "run", at(step, die), save_every=3))
    assert [row["step"] for row in journal(tmp_path / "run" / "metrics.jsonl")] == list(range(1, step + 1))

    voice = Listener()
    run_variant(lab, variant, tmp_path / "run", voice, resume=True, save_every=3)
    assert voice.began == (OPTIM["steps"], kept)
    assert outcome(tmp_path / "run") == uninterrupted(variant)


DEATHS: dict[str, tuple[Any, str]] = {
    "tensors half written": (checkpoint, "save_file"),
    "before the sync": (checkpoint, "_sync"),
    "before the rename": (Path, "rename"),
    "between two checkpoints": (shutil, "rmtree"),
    "while final is written": (hub, "save"),
}


@pytest.mark.parametrize("moment", DEATHS)
def test_kill_9_in_the_middle_of_writing(lab: Lab, uninterrupted: Uninterrupted, moment: str, tmp_path: Path) -> None:
    """The second call of what writes never returns (the first, of what writes the end); the checkpoint before holds."""
    owner, name = DEATHS[moment]
    real, calls = getattr(owner, name), []

    def second_is_fatal(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        calls.append(args)
        if len(calls) == (1 if owner is hub else 2):
            die()
        return result

    def doomed() -> None:
        setattr(owner, name, second_is_fatal)
        run_variant(lab, "ppo-separate", tmp_path / "run", save_every=2)

    killed(doomed)
    assert not (tmp_path / "run" / "final").exists()
    run_variant(lab, "ppo-separate", tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == uninterrupted("ppo-separate")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
        "findings.jsonl",
        "final",
    }


def test_what_a_torn_line_said_is_said_again(lab: Lab, uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    interrupt(lab, "dpo", tmp_path / "run", 5, save_every=2)
    for name in ("metrics.jsonl", "findings.jsonl"):
        path = tmp_path / "run" / name
        path.write_bytes(path.read_bytes()[:-9])
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    run_variant(lab, "dpo", tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == uninterrupted("dpo")


def test_another_setting_is_refused(lab: Lab, tmp_path: Path) -> None:
    """A run that changed its learning rate half way would be described by its config.yaml wrongly."""
    interrupt(lab, "dpo", tmp_path / "run", 3)
    verb, values = settings(lab)["dpo"]
    for section, key, value in (("optim", "learning_rate", 0.5), ("preference", "beta", 0.7)):
        changed = {**values, section: {**values.get(section, {}), key: value}}
        with pytest.raises(UserError, match=rf"{section}\.{key}: the run was started with .*, not {value}"):
            run_config(verb, changed, tmp_path / "run", resume=True)
    with pytest.raises(UserError, match=r"run\.seed"):
        run_config(verb, values, tmp_path / "run", resume=True, seed=5)


def test_other_data_is_refused_and_moved_data_is_not(lab: Lab, uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    interrupt(lab, "dpo", tmp_path / "run", 3)
    verb, values = settings(lab)["dpo"]
    shutil.copy(values["data"]["path"], tmp_path / "moved.jsonl")
    moved = {**values, "data": {"path": str(tmp_path / "moved.jsonl")}}
    other = write(tmp_path / "other.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(UserError, match="'data' is not what the run was started with"):
        run_config(verb, {**values, "data": {"path": str(other)}}, tmp_path / "run", resume=True)
    run_config(verb, moved, tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == uninterrupted("dpo")


@pytest.mark.parametrize("way", ["stopped before the look", "killed after the look"])
def test_a_finding_is_written_once(lab: Lab, tmp_path: Path, way: str) -> None:
    """Rules are looked at after step 10. What a killed run found there, or a stopped one would have, is there once."""
    verb, values = settings(lab)["grpo"]
    decoding = {"max_new_tokens": 6, "temperature": 0.01}  # every sample of a group is the same: rule G02
    values = {**values, "optim": {**OPTIM, "steps": 14}, "rollout": {**values["rollout"], "decoding": decoding}}
    run_config(verb, values, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    assert "dead-groups" in [finding["rule"] for finding in expected["findings"]]

    if way == "killed after the look":
        killed(lambda: run_config(verb, values, tmp_path / "run", at(12, die), save_every=9))
    else:
        with pytest.raises(Interrupted):
            run_config(verb, values, tmp_path / "run", at(9, ctrl_c))
    run_config(verb, values, tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == expected
