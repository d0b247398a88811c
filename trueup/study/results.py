"""Reading what the jobs of a study left behind, as plain rows and arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from trueup.config.study import StudyConfig
from trueup.study.plan import DONE, SFT

Items = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]
"""(arm, seed) -> items of the evaluation."""


def arm_names(study: StudyConfig) -> list[str]:
    """The arms in the order of reports: SFT, then as in the study file."""
    return [SFT, *(arm.name for arm in study.arms)]


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """The training run of an arm."""
    return folder / (f"sft/seed-{seed}" if arm == SFT else f"arms/{arm}/seed-{seed}")


def finished_arms(study: StudyConfig, folder: Path) -> list[str]:
    """Arms whose evaluation is there for every seed; the others failed and are reported as missing."""
    return [
        arm
        for arm in arm_names(study)
        if all((folder / f"evaluations/{arm}/seed-{seed}" / DONE).exists() for seed in study.seeds)
    ]


def read_evaluations(folder: Path, arms: Sequence[str], seeds: Sequence[int]) -> Items:
    """All items of the finished arms."""
    return {
        (arm, seed): list(read_rows(folder / f"evaluations/{arm}/seed-{seed}/items.jsonl"))
        for arm in arms
        for seed in seeds
    }


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a JSONL file; none if it does not exist."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def read_json(path: Path) -> Any:
    """A JSON file, or None if it does not exist."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run."""
    return yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))


def setting(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key of a run's configuration."""
    return reduce(lambda section, name: section[name], key.split("."), config)


def per_prompt(items: Items, arm: str, seeds: Sequence[int], column: str) -> NDArray[np.float64]:
    """Mean over the draws of each prompt: ``[seeds, prompts]``, prompts in one fixed order for all arms."""
    return np.array([_prompt_means(items[arm, seed], column) for seed in seeds])


def _prompt_means(rows: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(float(row[column]))
    return [float(np.mean(groups[key])) for key in sorted(groups)]


def prompt_families(items: Items, arm: str, seed: int) -> list[str]:
    """The task family of each prompt, in the order of ``per_prompt``."""
    family = {row["prompt_id"]: row["family"] for row in items[arm, seed]}
    return [family[key] for key in sorted(family)]


def curves(folder: Path, arm: str, seeds: Sequence[int], points: int = 60) -> dict[str, list[list[float]]]:
    """Training metrics as [step, mean over seeds, smallest, largest], at most ``points`` each, averaged in blocks."""
    runs = [list(read_rows(run_folder(folder, arm, seed) / "metrics.jsonl")) for seed in seeds]
    out: dict[str, list[list[float]]] = {}
    for name in sorted({key for run in runs for row in run for key in row} - {"step", "step_time"}):
        series = [[(row["step"], row[name]) for row in run if row.get(name) is not None] for run in runs]
        length = min(map(len, series))
        block = max(1, -(-length // points))
        for start in range(0, length, block):
            parts = [s[start : min(start + block, length)] for s in series]
            means = [float(np.mean([value for _, value in part])) for part in parts]
            out.setdefault(name, []).append([parts[0][-1][0], float(np.mean(means)), min(means), max(means)])
    return out
