"""What the page shows of single responses: one answer of every arm to every prompt, and means per prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow.compute import field

from trueup.study.schema import Study

_SHOWN = ("prompt_id", "response", "gold", "proxy", "length", "ended", "truncated")


@dataclass(frozen=True)
class Prompt:
    """A test prompt; the order of prompts is that of their first appearance."""

    id: str
    family: str
    text: str


@dataclass(frozen=True)
class PromptMeans:
    """An arm's mean on one prompt over all seeds and draws; ``length`` in tokens."""

    gold: float | None
    proxy: float | None
    length: float | None


def prompts(items: pa.Table) -> list[Prompt]:
    """Return every prompt once."""
    found: dict[str, Prompt] = {}
    columns = (items.column(name).to_pylist() for name in ("prompt_id", "family", "prompt"))
    for name, family, text in zip(*columns, strict=True):
        found.setdefault(name, Prompt(name, family or "", text or ""))
    return list(found.values())


def means(items: pa.Table) -> dict[tuple[str, str], PromptMeans]:
    """Return the means by arm and prompt."""
    metrics = ("gold", "proxy", "length")
    grouped = items.group_by(["arm", "prompt_id"], use_threads=False).aggregate([(name, "mean") for name in metrics])
    return {
        (row["arm"], row["prompt_id"]): PromptMeans(*(row[f"{name}_mean"] for name in metrics))
        for row in grouped.to_pylist()
    }


def browser(study: Study, items: pa.Table) -> dict[str, Any]:
    """Return what the side-by-side view embeds: each arm's first draw of its first seed, and its mean gold.

    An answer is ``[response, gold, proxy, length, ended, truncated, mean gold]``; null where an arm has none.
    """
    averages = means(items)
    firsts = {arm["name"]: _first_draws(items, arm["name"]) for arm in study["arms"]}
    arms = [{"label": arm["label"], "method": arm["method"], "seed": firsts[arm["name"]][0]} for arm in study["arms"]]
    listed = []
    for prompt in prompts(items):
        answers = []
        for name, (_, rows) in firsts.items():
            row = rows.get(prompt.id)
            mean = averages[name, prompt.id].gold if row else None
            answers.append([*(_short(row[key]) for key in _SHOWN[1:]), _short(mean)] if row else None)
        listed.append({"id": prompt.id, "family": prompt.family, "text": prompt.text, "answers": answers})
    return {"arms": arms, "prompts": listed}


def _first_draws(items: pa.Table, arm: str) -> tuple[int | None, dict[str, dict[str, Any]]]:
    own = items.filter(field("arm") == arm)
    seed = min(own["seed"].to_pylist(), default=None)
    first = own.filter((field("seed") == seed) & (field("draw") == 0))
    return seed, {row["prompt_id"]: row for row in first.select(list(_SHOWN)).to_pylist()}


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
