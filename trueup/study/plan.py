"""From a study file to jobs: what is run, from what, in which folder. Every recipe's settings are checked here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trueup.config.load import validate
from trueup.config.schema import RECIPES
from trueup.config.study import ArmSection, StudyConfig
from trueup.errors import UserError

SFT = "sft"
"""The start and the reference of every arm, itself compared with them."""

DONE = "job.json"
"""Written last into a job's folder: seconds and peak memory. A folder without it is not finished."""


@dataclass(frozen=True)
class Job:
    """One piece of work in a process of its own.

    Attributes:
        id: also its folder inside the study folder.
        stage: what progress displays and timings group by.
        label: how people call it.
        needs: ids of jobs that must be done before.
        call: name of a function of ``study.jobs``.
        arguments: what it is called with, plain values.
    """

    id: str
    stage: str
    label: str
    needs: tuple[str, ...]
    call: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def config_hash(config: BaseModel | Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any setting."""
    plain = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def plan_jobs(study: StudyConfig, folder: Path) -> list[Job]:
    """Return the jobs of a study in an order that respects their needs. Stages that arms share are there once."""
    jobs = [Job("world", "world", "world and tokenizer", (), "make_world", _world_arguments(study))]
    for seed in study.seeds:
        jobs += _shared_jobs(study, folder, seed)
    for arm in study.arms:
        if arm.tune is not None:
            jobs += _tuning_jobs(study, folder, arm)
    for seed in study.seeds:
        jobs += [job for arm in study.arms for job in _arm_jobs(study, folder, arm, seed)]
    return jobs


def arm_config(
    study: StudyConfig, folder: Path, arm: ArmSection, seed: int, out: str, value: float | None = None
) -> BaseModel:
    """The full, validated settings of one training run of an arm; ``value`` is the tuned setting's."""
    settings: dict[str, Any] = json.loads(json.dumps(arm.config))
    if arm.tune is not None:
        _lay(settings, arm, arm.tune.key, arm.tune.values[0] if value is None else value)
    settings["model"] = {"path": str(folder / f"sft/seed-{seed}/final")}
    settings["run"] = _run_settings(folder / out, seed)
    if arm.method == "dpo":
        settings["data"] = {"path": str(folder / f"pairs/seed-{seed}/train.jsonl")}
    else:
        settings["data"] = {"path": str(folder / "world/preference.jsonl")}
        _lay(settings, arm, "rollout.reward", str(folder / f"reward/seed-{seed}/final"))
    return validate(RECIPES[arm.method], settings, f"arm '{arm.name}'")


def _run_settings(out: Path, seed: int) -> dict[str, Any]:
    """How a job's recipe is run. Fatal findings stop none: an arm that goes wrong is a result, and the report tells."""
    return {"out": str(out), "seed": seed, "threads": 1, "on_fatal": "continue"}


def _lay(settings: dict[str, Any], arm: ArmSection, key: str, value: Any) -> None:
    """Set a dotted key of an arm's settings, whatever its depth."""
    *sections, name = key.split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
        if not isinstance(settings, dict):
            raise UserError(
                f"arm '{arm.name}': config: '{section}' holds {settings!r}; it must be a section, to set {key} in it"
            )
    settings[name] = value


def _world_arguments(study: StudyConfig) -> dict[str, Any]:
    return {"world": study.world, "vocabulary": study.model.vocabulary}


def _shared_jobs(study: StudyConfig, folder: Path, seed: int) -> list[Job]:
    sft, reward = _sft_config(study, folder, seed), _reward_config(study, folder, seed)
    pairs = {
        "world": study.world,
        "policy": str(folder / f"sft/seed-{seed}/final"),
        "prompts": {"train": study.pairs.prompts, "heldout": study.pairs.validation},
        "decoding": study.pairs.decoding.model_dump(),
        "seed": seed,
    }
    return [
        Job(f"sft/seed-{seed}", "sft", f"SFT, seed {seed}", ("world",), "train", _recipe("sft", sft)),
        _untrained(study, seed),
        Job(f"pairs/seed-{seed}", "pairs", f"pairs, seed {seed}", (f"sft/seed-{seed}",), "make_pairs", pairs),
        Job(
            f"reward/seed-{seed}",
            "reward",
            f"reward model, seed {seed}",
            (f"pairs/seed-{seed}",),
            "train",
            _recipe("reward", reward),
        ),
        _evaluation(study, SFT, seed, f"sft/seed-{seed}/final", (f"sft/seed-{seed}",)),
    ]


def _sft_config(study: StudyConfig, folder: Path, seed: int) -> BaseModel:
    settings = {
        **study.sft,
        "model": {
            "preset": study.model.preset,
            "tokenizer": str(folder / "world/tokenizer"),
            "context": study.model.context,
        },
        "data": {"path": str(folder / "world/demonstrations.jsonl")},
        "run": _run_settings(folder / f"sft/seed-{seed}", seed),
    }
    return validate(RECIPES["sft"], settings, "sft")


def _reward_config(study: StudyConfig, folder: Path, seed: int) -> BaseModel:
    pairs = folder / f"pairs/seed-{seed}"
    settings = {
        **study.reward,
        "model": {"path": str(folder / f"sft/seed-{seed}/final")},
        "data": {"path": str(pairs / "train.jsonl"), "validation": str(pairs / "heldout.jsonl")},
        "run": {**_run_settings(folder / f"reward/seed-{seed}", seed), "eval_every": 10_000},
    }
    return validate(RECIPES["reward"], settings, "reward")


def _recipe(verb: str, config: BaseModel) -> dict[str, Any]:
    return {"verb": verb, "config": config.model_dump(mode="json")}


def _untrained(study: StudyConfig, seed: int) -> Job:
    arguments = {
        "study_world": study.world,
        "preset": study.model.preset,
        "context": study.model.context,
        "decoding": study.evaluation.decoding.model_dump(),
        "seed": seed,
    }
    return Job(
        f"untrained/seed-{seed}",
        "evaluate",
        f"untrained model, seed {seed}",
        ("world",),
        "evaluate_untrained",
        arguments,
    )


def _arm_jobs(study: StudyConfig, folder: Path, arm: ArmSection, seed: int) -> list[Job]:
    run_id = f"arms/{arm.name}/seed-{seed}"
    needs = [f"pairs/seed-{seed}"] if arm.method == "dpo" else [f"reward/seed-{seed}"]
    if arm.tune is None:
        call, arguments = "train", _recipe(arm.method, arm_config(study, folder, arm, seed, run_id))
    else:
        call = "train_tuned"
        needs += [_tuning_id(arm, value) for value in arm.tune.values]
        arguments = {
            "verb": arm.method,
            "key": arm.tune.key,
            "candidates": {str(value): _tuning_id(arm, value) for value in arm.tune.values},
            "configs": {
                str(value): arm_config(study, folder, arm, seed, run_id, value).model_dump(mode="json")
                for value in arm.tune.values
            },
            "tuned_seed": study.seeds[0],
        }
    train = Job(run_id, arm.method, f"{arm.label}, seed {seed}", tuple(needs), call, arguments)
    return [train, _evaluation(study, arm.name, seed, f"{run_id}/final", (run_id, f"reward/seed-{seed}"))]


def _tuning_id(arm: ArmSection, value: float) -> str:
    return f"tuning/{arm.name}/{value:g}"


def _tuning_jobs(study: StudyConfig, folder: Path, arm: ArmSection) -> list[Job]:
    """Candidates on the first seed, each scored on validation prompts; the test set stays closed."""
    assert arm.tune is not None
    seed, jobs = study.seeds[0], []
    needs = (f"pairs/seed-{seed}",) if arm.method == "dpo" else (f"reward/seed-{seed}",)
    for value in arm.tune.values:
        out = _tuning_id(arm, value)
        config = arm_config(study, folder, arm, seed, out, value)
        arguments = {
            "verb": arm.method,
            "config": config.model_dump(mode="json"),
            "evaluation": {
                **_evaluation_arguments(study, seed, f"{out}/final"),
                "suite": "world/validation.jsonl",
                "prompts": arm.tune.prompts,
                "draws": 1,
            },
        }
        label = f"{arm.label}, {arm.tune.key.rpartition('.')[2]} {value:g}"
        jobs.append(Job(out, "tuning", label, needs, "train_candidate", arguments))
    return jobs


def _evaluation(study: StudyConfig, arm: str, seed: int, model: str, needs: tuple[str, ...]) -> Job:
    label = f"evaluate {arm}, seed {seed}"
    # The SFT model is scored by the reward model too, which is made from it.
    needs = (*needs, f"reward/seed-{seed}") if f"reward/seed-{seed}" not in needs else needs
    return Job(
        f"evaluations/{arm}/seed-{seed}",
        "evaluate",
        label,
        needs,
        "evaluate",
        _evaluation_arguments(study, seed, model),
    )


def _evaluation_arguments(study: StudyConfig, seed: int, model: str) -> dict[str, Any]:
    return {
        "world": study.world,
        "model": model,
        "reference": f"sft/seed-{seed}/final",
        "reward": f"reward/seed-{seed}/final",
        "suite": "world/test.jsonl",
        "prompts": study.evaluation.prompts,
        "draws": study.evaluation.draws,
        "decoding": study.evaluation.decoding.model_dump(),
        "seed": seed,
    }
