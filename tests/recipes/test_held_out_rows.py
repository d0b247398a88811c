"""Held-out rows are held against training rows before the first step of every run that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_lab import Lab, journal, run_config, settings, write

from trueup.errors import GateError
from trueup.recipes.held import turned_by_length


def run(lab: Lab, variant: str, validation: str, out: Path) -> list[dict[str, Any]]:
    verb, values = settings(lab)[variant]
    run_config(verb, {**values, "data": {**values["data"], "validation": validation}}, out)
    return journal(out / "findings.jsonl")


def test_evaluation_on_training_rows_stops_the_run(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="evaluation-overlap"):
        run(lab, "dpo", lab.pairs__jsonl, tmp_path / "same")
    assert "evaluation-overlap" not in {row["rule"] for row in run(lab, "dpo", lab.held__jsonl, tmp_path / "other")}


def test_a_preference_for_a_length_that_is_turned_round() -> None:
    """Sixty per cent of 400 held-out pairs, and in 1000 training pairs as many, none, or the opposite."""
    assert not turned_by_length(0.6, 1000, 0.6, 400)
    assert not turned_by_length(0.55, 1000, 0.6, 400), "half of it"
    assert turned_by_length(0.4, 1000, 0.6, 400) and turned_by_length(0.6, 1000, 0.4, 400)
    assert not turned_by_length(0.4, 1000, 0.6, 30), "thirty pairs are few"
    assert not turned_by_length(0.5, 0, 0.6, 400) and not turned_by_length(0.2, 1000, 0.5, 400)


def test_turned_columns_are_named_before_the_first_step(lab: Lab, tmp_path: Path) -> None:
    def rows(start: int, count: int, longer: str, shorter: str) -> list[dict[str, str]]:
        return [
            {"prompt": f"sort {n}: red sun", longer: "red red sun moon", shorter: "sun" if n % 2 else "moon"}
            for n in range(start, start + count)
        ]

    train = write(tmp_path / "train.jsonl", rows(0, 60, "chosen", "rejected"))
    verb, values = settings(lab)["reward-causal"]
    for name, sides in (("right", ("chosen", "rejected")), ("turned", ("rejected", "chosen"))):
        held = write(tmp_path / f"{name}.jsonl", rows(100, 40, *sides))
        data = {"path": str(train), "validation": str(held)}
        run_config(verb, {**values, "data": data}, tmp_path / name, on_fatal="continue")
        found = [(row["rule"], row["first_step"]) for row in journal(tmp_path / name / "findings.jsonl")]
        assert (("held-out-opposite", 0) in found) == (name == "turned")
