"""Settings of arms as a study lays them out, the tuned one among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trueup.config.load import validate
from trueup.config.study import StudyConfig
from trueup.errors import UserError
from trueup.study.plan import arm_config, plan_jobs


def study(method: str, key: str, values: list[Any], config: dict[str, Any] | None = None) -> StudyConfig:
    """A study of one arm with one tuned setting."""
    arm = {"name": "arm", "label": "Arm", "method": method, "setting": "tuned", "config": config or {}}
    arm["tune"] = {"key": key, "values": values}
    return validate(StudyConfig, {"name": "n", "question": "q", "world": "errands", "arms": [arm]}, "study.yaml")


def settings(found: StudyConfig, value: float) -> dict[str, Any]:
    return arm_config(found, Path("/study"), found.arms[0], 0, "out", value).model_dump()


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        ("ppo", "rollout.decoding.temperature", 0.7),
        ("dpo", "preference.options.gamma", 1.5),
        ("grpo", "grpo.group_size", 4),
        ("dpo", "optim.learning_rate", 1e-4),
    ],
)
def test_a_setting_of_any_depth_is_tuned_and_nothing_else_moves(method: str, key: str, value: float) -> None:
    config = {"optim": {"batch_size": 7}} if method == "dpo" else {"rollout": {"decoding": {"max_new_tokens": 7}}}
    one, other = (settings(study(method, key, [value, 2 * value], config), v) for v in (value, 2 * value))
    for found, expected in ((one, value), (other, 2 * value)):
        *sections, name = key.split(".")
        inner = found
        for section in sections:
            inner = inner[section]
        assert inner.pop(name) == expected
    assert one == other
    assert 7 in (one["optim"].get("batch_size"), one.get("rollout", {}).get("decoding", {}).get("max_new_tokens"))


@pytest.mark.parametrize(
    ("method", "key", "hint"),
    [
        ("ppo", "rollout.decoding.temprature", "did you mean 'rollout.decoding.temperature'"),
        ("ppo", "decoding.temperature", "did you mean 'rollout.decoding.temperature'"),
        ("grpo", "ppo.kl_coef", "did you mean 'grpo.kl_coef'"),
        ("ppo", "ppo", "tune.key: 'ppo' is no setting"),
        ("ppo", "ppo.kl_coef.deeper", "did you mean 'ppo.kl_coef'"),
        ("ppo", "run.seed", "is no setting of ppo that a study can choose"),  # the study lays its own over these
        ("ppo", "rollout.reward", "is no setting of ppo that a study can choose"),
        ("dpo", "", "tune.key: ''"),
    ],
)
def test_a_setting_that_is_not_there_is_refused_with_arm_and_nearest(method: str, key: str, hint: str) -> None:
    with pytest.raises(UserError, match=r"^study\.yaml: arm 'arm': tune\.key: ") as error:
        study(method, key, [0.1, 0.2])
    assert hint in str(error.value)


def test_a_section_that_is_a_value_is_refused() -> None:
    found = study("ppo", "rollout.decoding.temperature", [0.5, 1.0], {"rollout": {"decoding": 3}})
    with pytest.raises(UserError, match="arm 'arm': config: 'decoding' holds 3"):
        plan_jobs(found, Path("/study"))


def test_a_fatal_finding_stops_no_run_of_a_study() -> None:
    """An arm that goes wrong is a result: the report has its findings, and other arms need nothing of it."""
    jobs = plan_jobs(study("grpo", "grpo.kl_coef", [0.1, 1.0]), Path("/study"))
    configs = [job.arguments["config"] for job in jobs if "config" in job.arguments]
    configs += [config for job in jobs for config in job.arguments.get("configs", {}).values()]
    assert len(configs) > 3 and {config["run"]["on_fatal"] for config in configs} == {"continue"}
