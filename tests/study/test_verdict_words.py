"""What a study concludes from items: families of contrasts, over-optimisation, sentences. No model is run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trueup.study.analyse import _contrasts
from trueup.study.results import per_prompt
from trueup.study.words import over_optimised, verdict_sentences

SEEDS, PROMPTS = (0, 1, 2), 60


def items(shifts: dict[str, dict[str, float]], noise: float = 0.3) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Items of arms whose means differ from SFT's by the given shifts, over shared prompt difficulties."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=PROMPTS)
    out = {}
    for arm, shift in shifts.items():
        for seed in SEEDS:
            rows = []
            for prompt in range(PROMPTS):
                for draw in range(2):
                    values = {name: difficulty[prompt] + by + noise * rng.normal() for name, by in shift.items()}
                    rows.append({"prompt_id": f"p{prompt:02}", "draw": draw, "family": "f", **values})
            out[arm, seed] = rows
    return out


def test_draws_are_averaged_before_prompts_are_compared() -> None:
    table = per_prompt(items({"sft": {"gold": 0.0}}, noise=0.0), "sft", SEEDS, "gold")
    assert table.shape == (len(SEEDS), PROMPTS)
    assert np.ptp(table, axis=0).max() == pytest.approx(0.0)


def test_contrasts_with_sft_are_corrected_among_themselves() -> None:
    shifts = {"sft": 0.0, "a": 1.0, "b": 1.0, "c": -1.0}
    data = items({arm: {"gold": by} for arm, by in shifts.items()})
    tables = {arm: per_prompt(data, arm, SEEDS, "gold") for arm in shifts}
    contrasts = {(c["a"], c["b"]): c for c in _contrasts(list(shifts), tables, margin=0.3)}
    assert len(contrasts) == 6
    assert contrasts["a", "sft"]["verdict"] == "better" and contrasts["c", "sft"]["verdict"] == "worse"
    assert contrasts["b", "a"]["verdict"] in ("equivalent", "inconclusive")
    for family in (True, False):
        members = [c for pair, c in contrasts.items() if ("sft" in pair) == family]
        smallest = min(members, key=lambda c: c["p"])
        assert smallest["p_holm"] == pytest.approx(min(1.0, smallest["p"] * len(members)))


def test_over_optimisation_needs_both_halves() -> None:
    sft = {"gold": 0.0, "proxy": 0.0, "gold/content": 0.0, "gold/politeness": 0.0}
    data = items(
        {
            "sft": sft,
            "fooled": {"gold": -1.0, "proxy": 1.0, "gold/content": -0.2, "gold/politeness": -0.8},
            "good": {"gold": 1.0, "proxy": 1.0, "gold/content": 1.0, "gold/politeness": 0.0},
            "bad": {"gold": -1.0, "proxy": -1.0, "gold/content": -1.0, "gold/politeness": 0.0},
        }
    )
    found = over_optimised(["sft", "fooled", "good", "bad"], data, SEEDS)
    assert set(found) == {"fooled"}
    assert "politeness" in found["fooled"].message and found["fooled"].severity == "fatal"


def test_an_arm_against_itself_is_never_called_better() -> None:
    data = items({"sft": {"gold": 0.0}, "twin": {"gold": 0.0}})
    tables = {arm: per_prompt(data, arm, SEEDS, "gold") for arm in ("sft", "twin")}
    (contrast,) = _contrasts(["sft", "twin"], tables, margin=0.3)
    assert contrast["verdict"] in ("equivalent", "inconclusive")


def test_sentences_name_what_was_shown_and_what_was_not() -> None:
    arm = {"label": "X", "settings": {}, "metrics": {"gold": {"mean": 1.0}}}
    contrast = {
        "a": "x",
        "b": "sft",
        "estimate": 0.1,
        "low": -0.1,
        "high": 0.3,
        "verdict": "inconclusive",
        "n_needed": 900,
    }
    study = {
        "arms": [{"name": "sft", **arm, "label": "SFT"}, {"name": "x", **arm}],
        "contrasts": [contrast],
        "rank_sets": {"gold": {"sft": (1, 2), "x": (1, 2)}},
    }
    text = " ".join(verdict_sentences(study, None, {}))
    assert "No difference from SFT shown" in text and "900 prompts" in text and "No ranking" in text
    contrast.update(verdict="better", low=0.05)
    study["rank_sets"] = {"gold": {"sft": (2, 2), "x": (1, 1)}}
    text = " ".join(verdict_sentences(study, -2.0, {}))
    assert "Better than SFT: X by +0.10 [0.05, 0.30]" in text and "highest true score" in text and "−2.00" in text
