"""Per-prompt scores as evaluation scripts dump them to JSON: one arm a file, or all arms side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueup.errors import UserError
from trueup.health.readers.files import json_value
from trueup.health.rules_foreign.score_table import ScoreTable

_SCORES = ("reward", "score")
_MEANS = ("average_reward", "avg_reward", "mean_reward", "average_score", "mean_score")
_PROTOCOL = {
    "eval_temp": "temperature",
    "temperature": "temperature",
    "eval_top_k": "top_k",
    "top_k": "top_k",
    "max_new_tokens": "max_new_tokens",
    "resp_len": "max_new_tokens",
}


def read(path: Path) -> tuple[ScoreTable, ...]:
    """The tables of a file; none if it is not one of scores."""
    if path.suffix != ".json" or not path.is_file():
        return ()
    value = json_value(path)
    top = value if isinstance(value, dict) else {}
    rows = value if isinstance(value, list) else top.get("samples") or top.get("per_prompt")
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) and "prompt" in r for r in rows):
        return ()
    prompts = [str(row["prompt"]) for row in rows]
    if len(set(prompts)) < len(prompts):
        again = next(prompt for prompt in prompts if prompts.count(prompt) > 1)
        raise UserError(f"{path}: the prompt {again[:60]!r} has several rows; put its draws into one, under 'samples'")
    return _one_arm(path, rows, top) if _draws(rows[0]) else _side_by_side(rows, top)


def _one_arm(path: Path, rows: list[dict[str, Any]], top: Mapping[str, Any]) -> tuple[ScoreTable, ...]:
    draws = {str(row["prompt"]): _draws(row) for row in rows}
    empty = next((prompt for prompt, found in draws.items() if not found), None)
    if empty is not None:
        raise UserError(f"{path}: the prompt {empty[:60]!r} has no score ({' or '.join(_SCORES)})")
    return (
        ScoreTable(
            path.stem.removesuffix("_metrics"),
            {prompt: [score for score, _ in found] for prompt, found in draws.items()},
            {prompt: [text for _, text in found if text is not None] for prompt, found in draws.items()},
            _mean({**top, **top.get("summary", {})}),
            protocol=_protocol({**top, **top.get("tweaks", {}), **top.get("config", {})}),
        ),
    )


def _draws(row: Mapping[str, Any]) -> list[tuple[float, str | None]]:
    """(score, response) of each draw of a prompt."""
    samples = row["samples"] if isinstance(row.get("samples"), list) else [row]
    scored = [(next((sample[key] for key in _SCORES if key in sample), None), sample) for sample in samples]
    return [(float(score), sample.get("response")) for score, sample in scored if isinstance(score, int | float)]


def _mean(values: Mapping[str, Any]) -> tuple[float, int] | None:
    """A printed mean and its decimals."""
    found = next((values[key] for key in _MEANS if isinstance(values.get(key), int | float)), None)
    return None if found is None else _printed(found)


def _printed(value: float) -> tuple[float, int]:
    return float(value), len(repr(float(value)).partition(".")[2])


def _protocol(values: Mapping[str, Any]) -> dict[str, float]:
    return {ours: float(values[key]) for key, ours in _PROTOCOL.items() if isinstance(values.get(key), int | float)}


def _side_by_side(rows: list[dict[str, Any]], top: Mapping[str, Any]) -> tuple[ScoreTable, ...]:
    """Rows of ``{"prompt", arm: score, ...}``, with ``averages`` and ``ranks`` (or ``ranking``) where there are any."""
    arms = [name for name, value in rows[0].items() if name != "prompt" and isinstance(value, int | float)]
    means, order = top.get("averages", {}), top.get("ranking", [])
    ranks = top.get("ranks") or {arm: place for place, arm in enumerate(order, 1)}
    return tuple(
        ScoreTable(
            arm,
            {str(row["prompt"]): [float(row[arm])] for row in rows if isinstance(row.get(arm), int | float)},
            printed=_printed(means[arm]) if arm in means else None,
            rank=ranks.get(arm),
        )
        for arm in arms
    )
