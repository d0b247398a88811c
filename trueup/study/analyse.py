"""From the items of all arms to estimates, contrasts, rank sets and verdicts: ``study.json`` and ``items.parquet``."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trueup.config.study import ArmSection, StudyConfig
from trueup.stats.crossed import Effect, crossed_effect
from trueup.stats.multiple import holm, rank_sets
from trueup.stats.power import crossed_prompts_needed
from trueup.stats.verdicts import verdict
from trueup.study.budgets import budgets
from trueup.study.plan import SFT, config_hash
from trueup.study.results import (
    Items,
    curves,
    finished_arms,
    per_prompt,
    prompt_families,
    read_config,
    read_evaluations,
    read_json,
    read_rows,
    run_folder,
    setting,
)
from trueup.study.schema import REWARD_MODEL
from trueup.study.words import cautions, over_optimised, verdict_sentences

COLUMNS = {
    "gold": "gold",
    "proxy": "proxy",
    "kl/sequence": "kl",
    "length": "length",
    "eos_rate": "ended",
    "truncation_rate": "truncated",
}
"""Metric of ``study.json`` -> column of the items."""


def analyse(study: StudyConfig, folder: Path, facts: Mapping[str, Any]) -> None:
    """Compute everything a report shows, and write ``study.json`` and ``items.parquet``.

    Args:
        study: the study file.
        folder: where its jobs have run.
        facts: date, command, environment, seconds.
    """
    arms = finished_arms(study, folder)
    items = read_evaluations(folder, arms, study.seeds)
    tables = {arm: per_prompt(items, arm, study.seeds, "gold") for arm in arms}
    contrasts = _contrasts(arms, tables, study.smallest_effect)
    parameters = _parameters(folder, study)
    result: dict[str, Any] = {
        "schema": 1,
        "name": study.name,
        "question": study.question,
        "world": read_json(folder / "world/world.json"),
        "primary_metric": "gold",
        "smallest_effect": study.smallest_effect,
        "design": _design(study),
        "model": {"preset": study.model.preset, "parameters": parameters, "vocabulary": study.model.vocabulary},
        "reward_model": _reward_models(study, folder),
        "arms": [_arm(study, folder, arm, items, parameters) for arm in arms],
        "contrasts": contrasts,
        "rank_sets": {"gold": rank_sets(arms, {(c["a"], c["b"]): c["verdict"] for c in contrasts})},
        "families": [row for arm in arms for row in _families(items, arm, study.seeds)],
        "frontier": _frontier(study, folder, arms, items),
        "curves": {arm: curves(folder, arm, study.seeds) for arm in arms},
        **facts,
    }
    overs = over_optimised(arms, items, study.seeds)
    result["findings"] = _findings(study, folder, arms) + [
        {"arm": arm, "seed": None, **finding.row()} for arm, finding in overs.items()
    ]
    missing = [arm.label for arm in study.arms if arm.name not in arms]
    result["verdicts"] = verdict_sentences(result, _untrained(study, folder), overs)
    result["cautions"] = cautions(result, missing)
    write_study(folder, _finite(result), items)


def write_study(folder: Path, study: Mapping[str, Any], items: Items) -> None:
    """Write the two files that reports are made of."""
    (folder / "study.json").write_text(json.dumps(study, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    rows = [{"arm": arm, "seed": seed, **row} for (arm, seed), part in items.items() for row in part]
    names = sorted({name for row in rows for name in row})
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), folder / "items.parquet")


def _contrasts(arms: Sequence[str], tables: Mapping[str, np.ndarray], margin: float) -> list[dict[str, Any]]:
    """All pairs of arms on the primary metric; a is the later of the two in the study file.

    Two families, each corrected by Holm on its own: the arms against SFT, which is what a study asks first, and the
    arms against each other. Both are fixed by the study file before anything runs.
    """
    pairs = [(b, a) for a, b in itertools.combinations(arms, 2)]
    effects = [crossed_effect(tables[a] - tables[b]) for a, b in pairs]
    adjusted = [math.nan] * len(pairs)
    for family in (True, False):
        members = [i for i, pair in enumerate(pairs) if (SFT in pair) == family]
        for i, p in zip(members, holm([effects[i].p for i in members]), strict=True):
            adjusted[i] = p
    size = {family: sum((SFT in pair) == family for pair in pairs) for family in (True, False)}
    out = []
    for (a, b), effect, p in zip(pairs, effects, adjusted, strict=True):
        word = verdict(effect, p, margin)
        out.append(
            {
                "a": a,
                "b": b,
                "metric": "gold",
                **_interval(effect, "estimate"),
                "p": effect.p,
                "p_holm": p,
                "verdict": word,
                "n_needed": _needed(effect, margin, size[SFT in (a, b)]) if word == "inconclusive" else None,
            }
        )
    return out


def _needed(effect: Effect, margin: float, comparisons: int) -> int | None:
    """Prompts that would show the observed difference, or the smallest that matters, with 80 % power.

    None where no number of prompts would: the seeds differ too much for so few of them.
    """
    size = max(abs(effect.estimate), margin)
    if math.isnan(effect.seed_variance):
        return None
    n = crossed_prompts_needed(
        size,
        effect.num_seeds,
        seed_variance=effect.seed_variance,
        prompt_variance=effect.prompt_variance,
        residual_variance=effect.residual_variance,
        comparisons=comparisons,
    )
    return None if math.isinf(n) else int(n)


def _arm(study: StudyConfig, folder: Path, name: str, items: Items, parameters: int) -> dict[str, Any]:
    section = next((arm for arm in study.arms if arm.name == name), None)
    method = section.method if section else SFT
    runs = [run_folder(folder, name, seed) for seed in study.seeds]
    pairs = [read_json(folder / f"pairs/seed-{seed}/pairs.json")["train"]["pairs"] for seed in study.seeds]
    spent = [budgets(method, run, parameters, n) for run, n in zip(runs, pairs, strict=True)]
    return {
        "name": name,
        "label": section.label if section else "SFT",
        "method": method,
        "setting": section.setting if section else "start",
        "config_hash": config_hash(section or {"sft": study.sft}),
        "seeds": study.seeds,
        "settings": _settings(section, runs),
        "budgets": {key: _mean([row[key] for row in spent]) for key in spent[0]},
        "metrics": _metrics(items, name, study.seeds),
    }


def _settings(section: ArmSection | None, runs: Sequence[Path]) -> dict[str, Any]:
    """The settings that make the arm, flat, the tuned one included."""
    config = read_config(runs[0])
    wanted = {"optim": ("learning_rate", "batch_size", "steps"), "preference": ("beta", "loss"), "ppo": ("kl_coef",)}
    wanted |= {"grpo": ("group_size", "kl_coef"), "rollout": ("epochs", "mini_batches", "prompts_per_rollout")}
    out = {f"{part}.{key}": config[part][key] for part, keys in wanted.items() if part in config for key in keys}
    if section is not None and section.tune is not None:
        out[section.tune.key] = setting(config, section.tune.key)
        out["tuned"] = f"{section.tune.key} from {section.tune.values} on {section.tune.prompts} validation prompts"
    return out


def _metrics(items: Items, arm: str, seeds: Sequence[int]) -> dict[str, Any]:
    parts = [name for name in items[arm, seeds[0]][0] if name.startswith("gold/")]
    columns = {**COLUMNS, **{part: part for part in parts}}
    out = {name: _summary(per_prompt(items, arm, seeds, column)) for name, column in columns.items()}
    kl, length = (per_prompt(items, arm, seeds, column).mean(axis=1) for column in ("kl", "length"))
    per_token = kl / length
    out["kl/token"] = {"mean": float(per_token.mean()), "low": None, "high": None, "per_seed": per_token.tolist()}
    return out


def _summary(table: np.ndarray) -> dict[str, Any]:
    effect = crossed_effect(table)
    return {**_interval(effect, "mean"), "per_seed": table.mean(axis=1).tolist()}


def _interval(effect: Effect, name: str) -> dict[str, float]:
    return {name: effect.estimate, "low": effect.low, "high": effect.high}


def _families(items: Items, arm: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    table = per_prompt(items, arm, seeds, "gold")
    families = np.array(prompt_families(items, arm, seeds[0]))
    out = []
    for family in sorted(set(families)):
        part = table[:, families == family]
        out.append({"arm": arm, "family": family, **_interval(crossed_effect(part), "mean"), "n": part.shape[1]})
    return out


def _frontier(study: StudyConfig, folder: Path, arms: Sequence[str], items: Items) -> list[dict[str, Any]]:
    """Every trained model as a point: final models on test prompts, tuning candidates on validation prompts."""
    out = []
    for arm in arms:
        section = next((a for a in study.arms if a.name == arm), None)
        for seed in study.seeds:
            config = read_config(run_folder(folder, arm, seed))
            means = {name: float(per_prompt(items, arm, [seed], name).mean()) for name in ("gold", "proxy", "kl")}
            point = {"arm": arm, "method": section.method if section else SFT, "seed": seed}
            coefficient = _coefficient(section, config)
            out.append({**point, "step": config["optim"]["steps"], "coefficient": coefficient, **means})
        for value in section.tune.values if section and section.tune else ():
            scored = read_json(folder / f"tuning/{arm}/{value:g}/tuning.json")
            means = {"gold": scored["gold"], "proxy": scored["proxy"], "kl": scored["kl/sequence"]}
            point = {"arm": arm, "method": section.method if section else SFT, "seed": study.seeds[0], "step": None}
            out.append({**point, "coefficient": value, **means})
    return out


def _coefficient(section: ArmSection | None, config: Mapping[str, Any]) -> float | None:
    """What tells models of one arm apart: its tuned setting, else the strength of its anchor to the reference."""
    if section is not None and section.tune is not None:
        return setting(config, section.tune.key)
    known = ("preference.beta", "ppo.kl_coef", "grpo.kl_coef")
    return next((setting(config, key) for key in known if key.partition(".")[0] in config), None)


def _reward_models(study: StudyConfig, folder: Path) -> dict[str, Any]:
    found = {seed: read_json(folder / f"reward/seed-{seed}/reward_model.json") for seed in study.seeds}
    cards = {seed: card for seed, card in found.items() if card}
    per_seed = [
        {
            "seed": seed,
            "train_accuracy": card["train"]["accuracy"]["estimate"],
            "heldout_accuracy": card["heldout"]["accuracy"],
            "ece": card["heldout"]["ece"],
            "label_ceiling": read_json(folder / f"pairs/seed-{seed}/pairs.json")["heldout"]["label_ceiling"],
            "length_correlation": card["heldout"]["length_correlation"],
        }
        for seed, card in cards.items()
    ]
    return {"per_seed": per_seed, "reliability": _pooled([card["heldout"]["reliability"] for card in cards.values()])}


def _pooled(bins: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Reliability bins of several reward models, those of like confidence taken together."""
    grouped: dict[int, list[Mapping[str, float]]] = {}
    for row in itertools.chain(*bins):
        grouped.setdefault(math.floor(row["confidence"] * 20), []).append(row)
    out = []
    for _, rows in sorted(grouped.items()):
        count = sum(row["count"] for row in rows)
        mean = {key: sum(row[key] * row["count"] for row in rows) / count for key in ("confidence", "accuracy")}
        out.append({**mean, "count": count})
    return out


def _findings(study: StudyConfig, folder: Path, arms: Sequence[str]) -> list[dict[str, Any]]:
    """What health rules saw in the runs of the arms and of the reward models, each with its seed."""
    runs = [(arm, seed, run_folder(folder, arm, seed)) for arm in arms for seed in study.seeds]
    runs += [(REWARD_MODEL, seed, folder / f"reward/seed-{seed}") for seed in study.seeds]
    return [
        {"arm": owner, "seed": seed, **{name: value for name, value in row.items() if name != "step"}}
        for owner, seed, run in runs
        for row in read_rows(run / "findings.jsonl")
    ]


def _untrained(study: StudyConfig, folder: Path) -> float | None:
    scores = [read_json(folder / f"untrained/seed-{seed}/untrained.json") for seed in study.seeds]
    return _mean([score["gold"] for score in scores if score])


def _design(study: StudyConfig) -> dict[str, Any]:
    section = study.evaluation
    decoding = section.decoding.model_dump()
    return {
        "seeds": study.seeds,
        "seed_scope": "pipeline",
        "prompts": section.prompts,
        "draws": section.draws,
        "decoding": decoding,
    }


def _parameters(folder: Path, study: StudyConfig) -> int:
    return read_json(folder / f"sft/seed-{study.seeds[0]}/manifest.json")["parameters"]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _finite(value: Any) -> Any:
    """NaN and infinity become null: JSON has no word for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
