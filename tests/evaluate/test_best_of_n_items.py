"""Best-of-n as a policy: which item wins, how often, and what becomes of the winners."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from trueup.data.read import read_examples
from trueup.data.records import Message, PromptOnly
from trueup.evaluate.best_of_n import curve, training_rows, winners
from trueup.evaluate.policy import summarise
from trueup.stats.best_of_n import kl_bound

CHANCES, REWARDS, GOLD = (0.5, 0.2, 0.2, 0.1), (0.0, 1.0, 1.0, 3.0), (0.0, 4.0, 2.0, -1.0)
"""Of the four responses there are; two are paid alike."""


def item(response: int, prompt: str = "a", draw: int = 0, **more: Any) -> dict[str, Any]:
    told = {"response": str(response), "proxy": REWARDS[response], "gold": GOLD[response], "length": 3 + response}
    return {"prompt_id": prompt, "draw": draw, "ended": True, **told, **more}


def drawn(responses: tuple[int, ...], prompt: str = "a") -> list[dict[str, Any]]:
    return [item(response, prompt, draw) for draw, response in enumerate(responses)]


def test_the_winners_are_distributed_as_the_best_of_n_is() -> None:
    """Over all draws of three, each as often as it comes: F(r)^n - F(r-)^n, shared among equals by their chances."""
    found: dict[int, float] = defaultdict(float)
    for responses in itertools.product(range(4), repeat=3):
        (winner,) = winners(drawn(responses), 3)
        found[int(winner["response"])] += math.prod(CHANCES[r] for r in responses)
    middle = (0.9**3 - 0.5**3) / 2
    assert [found[r] for r in range(4)] == pytest.approx([0.5**3, middle, middle, 1 - 0.9**3])


def test_every_n_draws_are_one_choice() -> None:
    items = drawn((0, 3, 1, 0, 2, 0)) + drawn((1, 0, 0, 0, 0, 3), "b")
    chosen = winners(items, 3)
    assert [(i["prompt_id"], i["draw"], i["response"]) for i in chosen] == [
        *(("a", 0, "3"), ("a", 1, "2")),
        *(("b", 0, "1"), ("b", 1, "3")),
    ]


def test_the_curve_ends_at_the_winners_and_begins_at_all() -> None:
    items = drawn((0, 3, 1, 0)) + drawn((1, 0, 0, 0), "b")
    points = curve(items, 4, 4)
    assert [point["n"] for point in points] == [1, 2, 3, 4]
    for point, seen in ((points[0], items), (points[-1], winners(items, 4))):
        means = summarise(seen)
        assert {name: point[name] for name in ("proxy", "gold", "length")} == pytest.approx(
            {name: means[name] for name in ("proxy", "gold", "length")}
        )
    assert [point["kl/best_of_n_bound"] for point in points] == [kl_bound(n) for n in range(1, 5)]
    assert points[1]["proxy/low"] < points[1]["proxy"] < points[1]["proxy/high"]
    assert "proxy/low" not in curve(drawn((0, 1)), 2, 2)[0], "one prompt says nothing of others"


def test_the_curve_uses_more_draws_than_its_longest_n() -> None:
    assert curve(drawn((0, 3, 1, 0)), 4, 2) == curve(drawn((0, 3, 1, 0)), 4, 4)[:2]


def prompt(name: str, *turns: tuple[str, str]) -> PromptOnly:
    return PromptOnly(tuple(Message(*turn) for turn in turns), "", name, {})


def test_winners_become_rows_that_sft_reads(tmp_path: Path) -> None:
    prompts = [prompt("a", ("user", "ask")), prompt("b", ("user", "ask more"))]
    chosen = [item(3), item(1, "b"), item(0, "b"), item(2, "b", ended=False)]
    rows = training_rows(chosen, prompts)
    assert [(row["prompt"], row["response"], row["reward"]) for row in rows] == [
        *(("ask", "3", 3.0), ("ask more", "1", 1.0), ("ask more", "0", 0.0)),
    ], "but not the one that was cut off"
    assert training_rows(chosen, prompts, at_least=1.0) == rows[:2]
    assert read_back(rows, tmp_path) == [
        (("user", "ask"), "3"),
        (("user", "ask more"), "1"),
        (("user", "ask more"), "0"),
    ]


def test_prompts_of_several_turns_stay_whole(tmp_path: Path) -> None:
    prompts = [prompt("a", ("user", "ask")), prompt("b", ("system", "be kind"), ("user", "ask more"))]
    rows = training_rows([item(3), item(1, "b")], prompts)
    found = read_back(rows, tmp_path)
    assert found == [(("user", "ask"), "3"), (("system", "be kind"), ("user", "ask more"), "1")]


def read_back(rows: list[dict[str, Any]], folder: Path) -> list[tuple[Any, ...]]:
    """Prompts and responses as the reader of ``trueup sft`` has them."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = read_examples(file).records
    return [(*((turn.role, turn.content) for turn in row.prompt), row.response) for row in loaded]


def test_parts_of_the_proxy_are_averaged_where_they_apply() -> None:
    items = [item(1, **{"proxy/exact": 1.0, "proxy/far": None}), item(1, **{"proxy/exact": None, "proxy/far": None})]
    summary = summarise(items)
    assert summary["proxy/exact"] == 1.0 and "proxy/far" not in summary
