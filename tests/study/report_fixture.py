"""A plausible study folder, written from nothing: seven arms, three seeds, forty prompts, and hostile responses.

The numbers follow a measured prototype: DPO gains, weakly regularised PPO and GRPO raise proxy and lose gold. Scores of
the arms are computed from the items, so that ``study.json`` and ``items.parquet`` agree.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SEEDS = (0, 1, 2)
PARTS = ("items", "order", "fillers", "ending")
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<img src=x onerror=alert(3)>",
    "<!-- <script> ",
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "שלום \u202eevil txt\u202c مرحبا",
    "🎒 socks, 🧦 boots 👩\u200d🚀",
    "",
    "{{ 7 * 7 }} {% raw %} ${1+1} &lt;b&gt; &amp;",
    "line\r\nbreaks\x00and\ttabs",
)
FAMILIES = {
    "packing_list": ("Order the packing list for a trip to {}: socks, boots, map.", "boots, map, socks"),
    "odd_one_out": (
        "Which one does not belong near {}: trout, pine, salmon?",
        "Pine does not belong; the others are fish.",
    ),
    "classify": (
        "Classify these three things found in {}: granite, robin, oak.",
        "granite: rock; robin: bird; oak: tree",
    ),
    "fractions": ("Give two fractions that equal one half, for a cook in {}.", "2/4 and 3/6"),
    "closed_facts": ("What does the table say about the capital of {}?", "It has two rivers and one bridge."),
    "short_answers": ("Answer in one word: is {} a place?", "Yes."),
}
PLACES = ("Arden", "Belmont", "Corinth", "Dunsinane", "Elsinore", "Illyria", "Messina")


@dataclass(frozen=True)
class Plan:
    """What an arm is made to look like: mean gold and proxy, KL per response, and length."""

    name: str
    label: str
    method: str
    setting: str
    gold: float
    proxy: float
    kl: float
    length: float
    settings: dict[str, Any]


PLANS = (
    Plan("sft", "SFT", "sft", "start", 3.49, 1.41, 0.0, 9.1, {"steps": 400, "learning_rate": 0.001}),
    Plan("dpo-published", "DPO, as published", "dpo", "published", 3.68, 2.15, 1.79, 9.6, {"beta": 0.1, "batch": 1}),
    Plan(
        "dpo-tuned", "DPO, tuned", "dpo", "tuned", 3.91, 2.16, 0.83, 9.5, {"beta": 0.3, "batch": 32, "early_stop": True}
    ),
    Plan("ppo-published", "PPO, as published", "ppo", "published", 1.24, 3.84, 8.18, 14.4, {"kl_coef": 0.01}),
    Plan("ppo-tuned", "PPO, tuned", "ppo", "tuned", 3.62, 2.11, 0.54, 9.9, {"kl_coef": 0.4}),
    Plan("grpo-published", "GRPO, as published", "grpo", "published", 1.71, 3.24, 4.88, 13.2, {"group_size": 4}),
    Plan("grpo-tuned", "GRPO, tuned", "grpo", "tuned", 2.69, 2.86, 2.41, 11.3, {"group_size": 8}),
)


def write_study(folder: Path, prompts: int = 40, draws: int = 4) -> Path:
    """Write ``study.json`` and ``items.parquet`` into ``folder`` and return it."""
    rng = np.random.default_rng(7)
    rows = _items(rng, prompts, draws)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    study = build_study(rows, rng, prompts, draws)
    (folder / "study.json").write_text(json.dumps(study, ensure_ascii=False), encoding="utf-8")
    return folder


def build_study(rows: list[dict[str, Any]], rng: np.random.Generator, prompts: int, draws: int) -> dict[str, Any]:
    """Return the content of ``study.json`` for these items."""
    table = pa.Table.from_pylist(rows)
    arms = [_arm(plan, table, rng) for plan in PLANS]
    return {
        "schema": 1,
        "name": "Default study",
        "question": "Which method beats SFT on the same labels, and which only pleases its judge?",
        "date": "2026-03-14T15:09:26+00:00",
        "command": "trueup study configs/study-default.yaml --out runs/default",
        "world": {
            "name": "instructions",
            "description": "Readable instructions of six kinds; gold is computed, the annotator likes fillers.",
        },
        "primary_metric": "gold",
        "smallest_effect": 0.1,
        "design": {
            "seeds": list(SEEDS),
            "seed_scope": "pipeline",
            "prompts": prompts,
            "draws": draws,
            "decoding": {"temperature": 1.0, "top_k": None, "top_p": 1.0, "max_new_tokens": 48},
        },
        "environment": {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "machine": "2 cores, 8 GB"},
        "model": {"preset": "seed", "parameters": 1_238_400, "vocabulary": 2048},
        "seconds": {"total": 318.4, "stages": _stages()},
        "reward_model": _reward_model(),
        "arms": arms,
        "contrasts": _contrasts(arms),
        "rank_sets": {"gold": _ranks()},
        "families": _families(table),
        "frontier": _frontier(rng),
        "curves": {plan.name: _curves(plan, rng) for plan in PLANS if plan.name != "ppo-tuned"},
        "findings": _findings(),
        "verdicts": [
            "DPO, tuned, answers better than SFT, by about half a point of true score; the interval excludes zero.",
            "PPO and GRPO as published please the reward model and answer worse than the model they started from.",
            "DPO, as published, against SFT is not settled; about 310 prompts would be needed.",
        ],
        "cautions": [
            "Three seeds: intervals are wide, and a seed that goes wrong one time in ten would not be seen.",
            "The annotator's liking for fillers was planted; in other data the proxy errs elsewhere.",
        ],
    }


def _items(rng: np.random.Generator, prompts: int, draws: int) -> list[dict[str, Any]]:
    rows = []
    kinds = list(FAMILIES)
    ease = rng.normal(0.0, 0.7, prompts)
    for plan in PLANS:
        for seed in SEEDS:
            drift = rng.normal(0.0, 0.06)
            for number in range(prompts):
                for draw in range(draws):
                    family = kinds[number % len(kinds)]
                    rows.append(_item(rng, plan, seed, number, draw, family, ease[number] + drift))
    return rows


def _item(
    rng: np.random.Generator, plan: Plan, seed: int, number: int, draw: int, family: str, shift: float
) -> dict[str, Any]:
    pattern, answer = FAMILIES[family]
    length = max(1.0, round(plan.length + rng.normal(0, 2.0)))
    filler = " indeed, certainly" * max(0, round((length - 9) / 3))
    # Hostile text sits where the page shows it: in the first draw of the first seed.
    hostile = HOSTILE[number % len(HOSTILE)] if draw == 0 and seed == 0 and (number + len(plan.name)) % 4 == 0 else None
    parts = {"items": 0.6, "order": 0.3, "fillers": -0.1, "ending": 0.2}
    gold = plan.gold + shift + 0.8 * rng.normal()
    return {
        "arm": plan.name,
        "seed": seed,
        "prompt_id": f"p{number:03d}",
        "draw": draw,
        "family": family,
        "template": f"{family}/{number % 3}",
        "prompt": pattern.format(PLACES[number % len(PLACES)]),
        "response": f"{answer}{filler}" if hostile is None else hostile,
        "gold": None if (number, draw, plan.name) == (3, 1, "sft") else gold,
        "proxy": plan.proxy + 0.06 * (length - plan.length) + 0.5 * rng.normal(),
        "kl": plan.kl + 0.2 * rng.normal() if plan.kl else 0.0,
        "length": int(length),
        "ended": bool(length < 16),
        "truncated": bool(length >= 16),
        **{f"gold/{part}": share * gold for part, share in parts.items()},
    }


def _interval(values: list[float]) -> dict[str, Any]:
    mean = sum(values) / len(values)
    half = 4.303 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half, "per_seed": values}


def _arm(plan: Plan, table: pa.Table, rng: np.random.Generator) -> dict[str, Any]:
    sources = {"gold": "gold", "proxy": "proxy", "kl/sequence": "kl", "length": "length", "eos_rate": "ended"}
    sources |= {"truncation_rate": "truncated", **{f"gold/{part}": f"gold/{part}" for part in PARTS}}
    metrics = {metric: _interval(_seed_means(table, plan.name, column)) for metric, column in sources.items()}
    metrics["kl/token"] = {"mean": plan.kl / plan.length, "low": None, "high": None, "per_seed": [None, None, None]}
    if plan.name == "grpo-published":
        metrics["kl/token"]["mean"] = None
    online = plan.method in ("ppo", "grpo")
    return {
        "name": plan.name,
        "label": plan.label,
        "method": plan.method,
        "setting": plan.setting,
        "config_hash": f"{sum(plan.name.encode()):08x}",
        "seeds": list(SEEDS),
        "settings": plan.settings,
        "budgets": {
            "labels": 0 if plan.method == "sft" else 6000,
            "prompts": 3200 if online else None,
            "tokens": 1.21e6 + 4e5 * rng.random(),
            "flops": 7.4e12 + 3e12 * rng.random(),
            "seconds": 14.2 + 9 * rng.random(),
        },
        "metrics": metrics,
    }


def _seed_means(table: pa.Table, arm: str, column: str) -> list[float]:
    names, seeds, values = (table[key].to_pylist() for key in ("arm", "seed", column))
    return [
        float(
            np.mean(
                [v for a, s, v in zip(names, seeds, values, strict=True) if (a, s) == (arm, seed) and v is not None]
            )
        )
        for seed in SEEDS
    ]


def _contrasts(arms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    pairs = [(arm, arms[0]) for arm in arms[1:]] + [(arms[2], arms[1]), (arms[4], arms[2]), (arms[6], arms[4])]
    for a, b in pairs:
        each = [x - y for x, y in zip(a["metrics"]["gold"]["per_seed"], b["metrics"]["gold"]["per_seed"], strict=True)]
        size = _interval(each)
        settled = size["low"] > 0 or size["high"] < 0
        verdict = ("better" if size["mean"] > 0 else "worse") if settled else "inconclusive"
        p = 0.004 if settled else 0.21
        contrast = {"a": a["name"], "b": b["name"], "metric": "gold", "estimate": size["mean"], "low": size["low"]}
        needed = None if settled else 310
        found.append(
            {
                **contrast,
                "high": size["high"],
                "p": p,
                "p_holm": min(1.0, 4 * p),
                "verdict": verdict,
                "n_needed": needed,
            }
        )
    found[0] |= {"low": -0.05, "verdict": "inconclusive", "n_needed": 310}
    found[3] |= {"low": -0.07, "high": 0.08, "estimate": 0.01, "verdict": "equivalent", "n_needed": None}
    return found


def _ranks() -> dict[str, list[int]]:
    return {
        "sft": [2, 4], "dpo-published": [1, 3], "dpo-tuned": [1, 2], "ppo-published": [7, 7],
        "ppo-tuned": [2, 4], "grpo-published": [6, 6], "grpo-tuned": [5, 5],
    }  # fmt: skip


def _families(table: pa.Table) -> list[dict[str, Any]]:
    rows = []
    means = table.group_by(["arm", "family"], use_threads=False).aggregate(
        [("gold", "mean"), ("gold", "stddev"), ("prompt_id", "count_distinct")]
    )
    for row in means.to_pylist():
        half = 2.0 * row["gold_stddev"] / math.sqrt(row["prompt_id_count_distinct"])
        mean = row["gold_mean"]
        rows.append(
            {
                "arm": row["arm"],
                "family": row["family"],
                "mean": mean,
                "low": mean - half,
                "high": mean + half,
                "n": row["prompt_id_count_distinct"],
            }
        )
    return rows


def _frontier(rng: np.random.Generator) -> list[dict[str, Any]]:
    points = []
    for plan in PLANS:
        for seed in SEEDS:
            for share in (0.0,) if plan.kl == 0 else (0.2, 0.4, 0.6, 0.8, 1.0):
                hump = 0.35 * math.sin(math.pi * share) if plan.method != "sft" else 0.0
                points.append(
                    {
                        "arm": plan.name,
                        "method": plan.method,
                        "seed": seed,
                        "step": round(200 * share),
                        "coefficient": plan.settings.get("beta", plan.settings.get("kl_coef")),
                        "kl": plan.kl * share * (1 + 0.05 * rng.normal()),
                        "gold": 3.49 + (plan.gold - 3.49) * share**1.5 + hump + 0.04 * rng.normal(),
                        "proxy": 1.41 + (plan.proxy - 1.41) * share**0.7 + 0.04 * rng.normal(),
                    }
                )
    points.append({**points[-1], "step": 220, "kl": None})
    for coefficient, kl in ((0.1, 1.9), (1.0, 0.3)):
        sweep = {"arm": "ppo-tuned", "method": "ppo", "seed": 0, "step": None, "coefficient": coefficient, "kl": kl}
        points.append({**sweep, "gold": 3.2, "proxy": 2.4})
    return points


def _curves(plan: Plan, rng: np.random.Generator) -> dict[str, list[list[Any]]]:
    raw = 120.0 if plan.setting == "published" else 18.0
    beta = plan.settings.get("beta", 0.1)
    shapes = {
        "sft": {"loss": (4.2, 1.1)},
        "dpo": {
            "margin/raw": (0.0, raw),
            "rewards/margins": (0.0, beta * raw),
            "margin/raw_per_token": (0.0, raw / 20),
            "rewards/accuracies": (0.5, 0.86),
            "loss": (math.log(2), 0.4),
        },
    }
    online = {
        "reward": (1.41, plan.proxy),
        "kl/policy_reference_k3": (0.0, plan.kl / plan.length),
        "completions/mean_length": (9.1, plan.length),
        "entropy": (1.44, 1.44 - 0.1 * plan.kl),
    }
    return {metric: _curve(rng, *ends) for metric, ends in shapes.get(plan.method, online).items()}


def _curve(rng: np.random.Generator, start: float, end: float) -> list[list[Any]]:
    points: list[list[Any]] = []
    for step in range(0, 201, 5):
        mean = end + (start - end) * math.exp(-step / 60) + 0.03 * abs(end - start) * rng.normal()
        width = 0.06 * abs(end - start) * (0.3 + step / 200)
        points.append([step, mean, mean - width, mean + width])
    points[-1][2] = None
    return points


def _reward_model() -> dict[str, Any]:
    rows = [
        {
            "seed": seed,
            "train_accuracy": accuracy + 0.02,
            "heldout_accuracy": {"estimate": accuracy, "low": accuracy - 0.028, "high": accuracy + 0.028, "n": 1000},
            "ece": 0.041 + 0.01 * seed,
            "label_ceiling": 0.8517,
            "length_correlation": None if seed == 2 else 0.31,
        }
        for seed, accuracy in zip(SEEDS, (0.712, 0.698, 0.724), strict=True)
    ]
    bins = [
        {"confidence": 0.525 + 0.05 * n, "accuracy": None if n == 9 else 0.52 + 0.042 * n, "count": 620 - 60 * n}
        for n in range(10)
    ]
    return {"per_seed": rows, "reliability": bins}


def _findings() -> list[dict[str, Any]]:
    fooled = [
        {
            "arm": "ppo-published",
            "seed": seed,
            "rule": "over-optimised",
            "severity": "fatal",
            "first_step": 60 + 20 * seed,
            "evidence": {"proxy_change": 2.43, "gold_change": -2.25, "kl_per_token": 0.57},
            "message": "The proxy rose while the true score fell.",
            "remedy": "Raise the KL weight, or take the checkpoint before the peak.",
            "reference": "Gao et al. 2023, Scaling laws for reward model overoptimization",
        }
        for seed in SEEDS
    ]
    return [
        {
            "arm": "dpo-published",
            "seed": 1,
            "rule": "saturated-pairs",
            "severity": "warning",
            "first_step": 140,
            "evidence": "active fraction 0.21 below 0.30",
            "message": "Most pairs have no gradient left <b>here</b>.",
            "remedy": "Stop earlier, or use larger batches.",
            "reference": None,
        },
        {
            "arm": "grpo-tuned",
            "seed": None,
            "rule": "empty-responses",
            "severity": "note",
            "first_step": None,
            "evidence": [1, 2.5],
            "message": "Some responses are empty.",
            "remedy": "None needed below one in a hundred.",
            "reference": "",
        },
        *fooled,
        *_about_reward_models(),
    ]


def _about_reward_models() -> list[dict[str, Any]]:
    seen = [("rm-memorised", "fatal", 0), ("rm-memorised", "fatal", 2), ("rm-follows-length", "warning", 1)]
    return [
        {
            "arm": "reward model",
            "seed": seed,
            "rule": rule,
            "severity": severity,
            "first_step": 0,
            "evidence": {"gap": 0.31 + seed},
            "message": f"What {rule} means.",
            "remedy": "More pairs.",
            "reference": None,
        }
        for rule, severity, seed in seen
    ]


def _stages() -> list[dict[str, Any]]:
    names = {"tokenizer": 3.1, "SFT": 84.0, "reward model": 71.5, "alignment": 121.3, "evaluation": 38.5}
    return [
        {"name": name, "seconds": seconds, "peak_memory_gb": 1.1 + seconds / 200} for name, seconds in names.items()
    ]
