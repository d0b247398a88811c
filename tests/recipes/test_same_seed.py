"""A run is a function of its settings and its seed, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_lab import OPTIM, VARIANTS, Lab, outcome, run_config, run_variant, settings, weights

HELD = {
    "prompts.jsonl": None,
    "pairs.jsonl": "held.jsonl",
    "examples.jsonl": "held_examples.jsonl",
    "judged.jsonl": "held_judged.jsonl",
}
"""Data file -> its held-out companion in the laboratory."""

Uninterrupted = Callable[[str], Mapping[str, Any]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_seed_gives_one_run(lab: Lab, uninterrupted: Uninterrupted, variant: str, tmp_path: Path) -> None:
    run_variant(lab, variant, tmp_path / "again")
    assert outcome(tmp_path / "again") == uninterrupted(variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_another_seed_gives_another_run(lab: Lab, uninterrupted: Uninterrupted, variant: str, tmp_path: Path) -> None:
    run_variant(lab, variant, tmp_path / "other", seed=1)
    assert weights(tmp_path / "other") != uninterrupted(variant)["weights"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_watching_a_run_does_not_change_it(
    lab: Lab, uninterrupted: Uninterrupted, variant: str, tmp_path: Path
) -> None:
    """Checkpoints and held-out evaluation must leave weights and training metrics alone (no shared randomness)."""
    verb, values = settings(lab)[variant]
    validation = HELD[Path(values["data"]["path"]).name]
    watching = {"save_every": 1}
    if validation:
        values = {**values, "data": {**values["data"], "validation": str(lab.root / validation)}}
        watching["eval_every"] = 3
    run_config(verb, values, tmp_path / "watched", **watching)
    watched, plain = outcome(tmp_path / "watched"), uninterrupted(variant)
    assert watched["weights"] == plain["weights"]
    bare = [{k: v for k, v in row.items() if not k.startswith("eval/")} for row in watched["metrics"]]
    assert bare == plain["metrics"]
    evaluated = [row["step"] for row in watched["metrics"] if "eval/loss" in row]
    assert evaluated == ([3, 6, OPTIM["steps"]] if validation else [])


def test_a_loss_that_ranks_pairs_against_each_other_is_never_cut(lab: Lab, tmp_path: Path) -> None:
    """AOT sorts the margins of a step: in micro-batches it would be another loss, without any sign.

    Held-out pairs are ranked within windows of a step's size too, so that ``eval/loss`` can be read beside ``loss``.
    """
    verb, values = settings(lab)["dpo"]
    values = {
        **values,
        "preference": {"loss": "aot"},
        "data": {**values["data"], "validation": str(lab.root / "held.jsonl")},
    }
    for name, tokens in {"small": 8, "large": 4096}.items():
        cut = {**values, "optim": {**values["optim"], "micro_batch_tokens": tokens}}
        run_config(verb, cut, tmp_path / name)
    assert outcome(tmp_path / "small") == outcome(tmp_path / "large")
