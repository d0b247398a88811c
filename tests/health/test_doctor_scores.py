"""What the doctor says of tables of scores: made by hand, in the shapes that evaluation scripts dump."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trueup.errors import UserError
from trueup.health.doctor import NAMES, judge_scores
from trueup.health.findings import Finding
from trueup.health.readers.sources import open_path
from trueup.health.readers.translate import Told
from trueup.health.rules_foreign.score_table import ScoreTable

PROMPTS = [f"prompt {i}" for i in range(8)]


def table(arm: str, scores: list[float], **more: Any) -> ScoreTable:
    return ScoreTable(arm, {p: [s] for p, s in zip(PROMPTS, scores, strict=False)}, **more)


def texts(*responses: str) -> dict[str, list[str]]:
    return {p: [r] for p, r in zip(PROMPTS, responses, strict=False)}


def found(rule: str, *tables: ScoreTable) -> Finding | None:
    return next((finding for finding in judge_scores(tables) if finding.rule == rule), None)


def dumped(path: Path, value: Any) -> list[ScoreTable]:
    path.write_text(json.dumps(value), encoding="utf-8")
    readings, tables = open_path(path, Told(), NAMES)
    assert not readings
    return tables


ROWS = [{"prompt": "a", "response": "x", "reward": 1.0}, {"prompt": "b", "response": "y", "reward": 2.5}]
SHAPES = {
    "rows": ROWS,
    "samples": {"average_reward": 1.75, "samples": ROWS, "tweaks": {"eval_temp": 0.3}},
    "per prompt": {"summary": {"avg_reward": 1.75}, "per_prompt": ROWS},
    "draws": [{"prompt": r["prompt"], "samples": [{"response": r["response"], "reward": r["reward"]}]} for r in ROWS],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_one_arm_in_every_shape_is_one_table(shape: str, tmp_path: Path) -> None:
    (read,) = dumped(tmp_path / "dpo_metrics.json", SHAPES[shape])
    assert (read.arm, read.scores, read.responses) == ("dpo", {"a": [1.0], "b": [2.5]}, {"a": ["x"], "b": ["y"]})
    assert read.mean == 1.75 and read.draws == 1
    assert read.printed == ((1.75, 2) if shape in ("samples", "per prompt") else None)
    assert read.protocol == ({"temperature": 0.3} if shape == "samples" else {})


def test_arms_side_by_side_are_several_tables(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "sft": 1.0, "dpo": 2.0}, {"prompt": "b", "sft": 3.0, "dpo": 4.0}]
    sft, dpo = dumped(tmp_path / "all.json", {"averages": {"sft": 2.0}, "ranking": ["dpo", "sft"], "per_prompt": rows})
    assert (sft.arm, sft.mean, sft.printed, sft.rank) == ("sft", 2.0, (2.0, 1), 2)
    assert (dpo.arm, dpo.mean, dpo.printed, dpo.rank) == ("dpo", 3.0, None, 1)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"prompt": "a", "reward": 1}, {"prompt": "a", "reward": 2}], "several rows"),
        ([{"prompt": "a", "reward": 1}, {"prompt": "b"}], "no score"),
    ],
)
def test_tables_that_cannot_be_paired_are_refused(rows: list[Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        dumped(tmp_path / "x.json", rows)


def test_a_difference_on_eight_of_eight_prompts_is_established_and_on_four_of_eight_it_is_not() -> None:
    low = table("low", [0.0] * 8)
    assert found("unestablished-differences", low, table("high", [1, 2, 3, 4, 5, 6, 7, 8])) is None  # p = 2 / 2^8
    finding = found("unestablished-differences", low, table("mixed", [1, -1, 2, -2, 3, -3, 4, -4]))
    assert finding is not None and finding.severity == "warning"
    (row,) = finding.evidence["contrasts"]
    assert (row["p"], row["wins"], row["losses"], row["ties"], row["prompts_needed"]) == (1.0, 4, 4, 0, None)


def test_holm_counts_every_pair_of_arms() -> None:
    """p = 2 / 2^8 = 0.0078 for the one clear difference from each other arm: of six, 0.047 and no more would pass."""
    arms = [table("clear", [10.0 + i for i in range(8)])]
    arms += [table(f"like {k}", [0.1 * (-1) ** (i + k) for i in range(8)]) for k in range(3)]
    finding = found("unestablished-differences", *arms)
    assert finding is not None and finding.severity == "note"
    adjusted = {row["b"]: row["p_holm"] for row in finding.evidence["contrasts"] if row["b"] == "clear"}
    adjusted |= {row["a"]: row["p_holm"] for row in finding.evidence["contrasts"] if row["b"] == "clear"}
    assert min(adjusted.values()) == pytest.approx(6 * 2 / 2**8)
    assert "Only 3 of the 6" in finding.message


PHASE_5 = {"sft": (4.13, 2), "ppo": (3.52, 4), "grpo": (3.31, 3), "dpo": (4.15, 1)}
"""Means and places as a public comparison printed them: third is below fourth."""


def test_ranks_that_contradict_their_means() -> None:
    tables = [table(arm, [mean] * 8, rank=rank) for arm, (mean, rank) in PHASE_5.items()]
    finding = found("printed-order", *tables)
    assert finding is not None and finding.severity == "fatal"
    assert finding.evidence["out_of_order"] == [["grpo", "ppo"]]
    righted = {"grpo": 4, "ppo": 3}
    assert (
        found("printed-order", *[table(t.arm, [t.mean] * 8, rank=righted.get(t.arm, t.rank)) for t in tables]) is None
    )


@pytest.mark.parametrize(
    ("printed", "wrong"), [((1.13, 2), False), ((1.125, 3), False), ((1.1, 1), False), ((1.2, 1), True)]
)
def test_a_printed_mean_may_be_rounded_and_no_more(printed: tuple[float, int], wrong: bool) -> None:
    finding = found("printed-order", table("a", [1.0] * 7 + [2.0], printed=printed))
    assert (finding is not None) == wrong
    assert finding is None or finding.severity == "warning"


def test_settings_that_differ_are_worse_than_signs_of_them() -> None:
    one, two = ({"temperature": 0.3, "top_k": 20.0}, {"temperature": 0.7, "max_new_tokens": 64.0})
    stated = found("unequal-protocol", table("a", [1, 2], protocol=one), table("b", [1, 2], protocol=two))
    assert stated is not None and stated.severity == "fatal"
    assert stated.evidence["settings"] == {
        "temperature": {"a": 0.3, "b": 0.7}
    }  # what one alone states is not held against it
    lengths = [table(arm, [1, 2], responses=texts("x" * n, "y")) for arm, n in (("a", 100), ("b", 151))]
    seen = found("unequal-protocol", *lengths)
    assert seen is not None and (seen.severity, seen.evidence["longest"]) == ("warning", {"a": 100, "b": 151})
    several = ScoreTable("c", {p: [1.0, 2.0] for p in PROMPTS[:2]})
    drawn = found("unequal-protocol", table("a", [1, 2]), several)
    assert drawn is not None and drawn.evidence["draws"] == {"a": 1, "c": 2}
    assert found("unequal-protocol", table("a", [1, 2]), table("b", [3, 4])) is None


def test_equal_answers_are_counted_by_pair_of_arms() -> None:
    one = table("a", [1] * 8, responses=texts(*"12345678"))
    two = table("b", [1] * 8, responses=texts(*"12x45xxx"))
    few = table("c", [1] * 8, responses=texts(*"1yyyyyyy"))
    finding = found("identical-responses", one, two, few)
    assert finding is not None and finding.severity == "warning"
    assert finding.evidence["identical"] == {"a, b": 4, "a, c": 1, "b, c": 1}
    rare = found("identical-responses", one, few)
    assert rare is not None and rare.severity == "note"


def test_a_cut_that_moves_the_score() -> None:
    long, short = "A long answer that goes on and on.", "A long answer that goes"
    rest = [f"{'another answer':20} {i}" for i in range(7)]
    full = table("full", [0.0] * 8, responses=texts(long, *rest))
    cut = table("cut", [9.0, *[0.1] * 7], responses=texts(short, *[f"else {text}" for text in rest]))
    finding = found("cut-changes-score", full, cut)
    assert finding is not None
    assert finding.evidence["cuts"] == [{"prompt": "prompt 0", "arms": ["full", "cut"], "longer": 0.0, "shorter": 9.0}]
    calm = table("cut", [0.1, *[9.0] * 7], responses=cut.responses)
    assert found("cut-changes-score", full, calm) is None  # the same cut, another score elsewhere


def test_noise_of_one_draw_is_that_within_prompts() -> None:
    """Means differ by 100 between prompts; within them draws are 1 apart."""
    several = ScoreTable("g", {p: [100.0 * i, 100.0 * i + 1] for i, p in enumerate(PROMPTS)})
    finding = found("draw-noise", several, table("s", [1.0] * 8))
    assert finding is not None
    assert finding.evidence["spread"] == pytest.approx(math.sqrt(0.5))
    assert finding.evidence["standard_error"] == pytest.approx(math.sqrt(0.5 / 8))
    assert np.std([0, 1], ddof=1) == pytest.approx(finding.evidence["spread"])


def test_tables_without_common_prompts_and_single_ones_are_not_compared() -> None:
    assert judge_scores([table("a", [1.0]), ScoreTable("b", {"other": [1.0]})]) == []
    assert judge_scores([table("a", [1.0, 2.0])]) == judge_scores([]) == []
