"""Best-of-n as a policy: of n draws the one with the highest reward, from items that have a ``proxy``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trueup.data.records import Prompt, PromptOnly
from trueup.stats.best_of_n import best_of_n, kl_bound
from trueup.stats.intervals import mean_interval

Item = Mapping[str, Any]


def winners(items: Sequence[Item], n: int) -> list[dict[str, Any]]:
    """Of every n items in turn the one with the highest ``proxy``; ``draw`` becomes the number of the choice.

    The first of several best wins: they are paid the same, and draws are alike before they are scored.

    Args:
        items: of ``evaluate_policy``, with a multiple of n draws a prompt.
        n: draws to choose from.
    """
    groups = [items[start : start + n] for start in range(0, len(items), n)]
    best = [max(group, key=lambda item: item["proxy"]) for group in groups]
    return [{**item, "draw": group[0]["draw"] // n} for item, group in zip(best, groups, strict=True)]


def curve(items: Sequence[Item], draws: int, most: int) -> list[dict[str, float]]:
    """What the best of n is worth for every n up to ``most``, estimated without bias from all draws.

    Args:
        items: ``draws`` to a prompt, prompt by prompt.
        draws: N.
        most: at most N.

    Returns:
        For each n: ``n``; ``proxy``, and where items have it ``gold``, with the bounds ``<name>/low`` and
        ``<name>/high`` of a 95 % interval over prompts (left out for a single prompt); ``length``, ``ended`` (a share)
        and ``kl/best_of_n_bound``.
    """
    table = {name: _column(items, name, draws) for name in ("proxy", "gold", "length", "ended") if name in items[0]}
    worth = {name: best_of_n(table["proxy"], values) for name, values in table.items()}
    return [_point(n, {name: values[:, n - 1] for name, values in worth.items()}) for n in range(1, most + 1)]


def training_rows(
    chosen: Sequence[Item], prompts: Sequence[PromptOnly], at_least: float | None = None
) -> list[dict[str, Any]]:
    """Rows that ``trueup sft`` trains on: each prompt with its chosen response, rejection sampling's data.

    A response that was cut off is left out, because training would teach the model to stop there; so is one whose
    reward is below ``at_least``.

    Args:
        chosen: of ``winners``.
        prompts: those that were answered; their texts go to the file, in whole.
        at_least: lowest reward.
    """
    known = {prompt.id: prompt.prompt for prompt in prompts}
    # A file has one shape: text where every prompt is one turn of the user.
    write = _as_text if all([turn.role for turn in prompt] == ["user"] for prompt in known.values()) else _as_turns
    return [
        {**write(known[item["prompt_id"]], item["response"]), "reward": item["proxy"]}
        for item in chosen
        if item["ended"] and (at_least is None or item["proxy"] >= at_least)
    ]


def _as_text(prompt: Prompt, response: str) -> dict[str, Any]:
    return {"prompt": prompt[0].content, "response": response}


def _as_turns(prompt: Prompt, response: str) -> dict[str, Any]:
    turns = [{"role": turn.role, "content": turn.content} for turn in prompt]
    return {"messages": [*turns, {"role": "assistant", "content": response}]}


def _column(items: Sequence[Item], name: str, draws: int) -> np.ndarray:
    return np.array([float(item[name]) for item in items]).reshape(-1, draws)


def _point(n: int, worth: Mapping[str, np.ndarray]) -> dict[str, float]:
    """One line of the curve from the values of each prompt."""
    out: dict[str, float] = {"n": n}
    for name, values in worth.items():
        out[name] = float(values.mean())
        if name in ("proxy", "gold") and len(values) > 1:
            found = mean_interval(values)
            out |= {f"{name}/low": found.low, f"{name}/high": found.high}
    return {**out, "kl/best_of_n_bound": kl_bound(n)}
