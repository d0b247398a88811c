"""Settings of a run on pairs that must come to the same, or to nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_lab import OPTIM, Lab, Listener, journal, outcome, run_config, run_variant, settings


def run_pairs(lab: Lab, out: Path, **preference: Any) -> list[dict[str, Any]]:
    _, values = settings(lab)["dpo"]
    run_config("dpo", {**values, "preference": preference}, out)
    return journal(out / "metrics.jsonl")


def test_a_reference_that_is_always_the_policy_sees_no_margin(lab: Lab, tmp_path: Path) -> None:
    """Copied after every step, the reference is the policy that the next step scores."""
    rows = run_pairs(lab, tmp_path / "run", sync_every=1, sync_mixup=1.0)
    assert [row["margin/raw"] for row in rows] == pytest.approx([0.0] * OPTIM["steps"], abs=1e-4)
    assert [row["gradient_weight/mean"] for row in rows] == pytest.approx([0.5] * OPTIM["steps"], abs=1e-5)


def test_a_reference_that_moves_is_the_same_until_it_moves(lab: Lab, tmp_path: Path) -> None:
    still, moving = run_pairs(lab, tmp_path / "still"), run_pairs(lab, tmp_path / "moving", sync_every=4)
    near = [a["margin/raw"] == pytest.approx(b["margin/raw"], abs=1e-3) for a, b in zip(still, moving, strict=True)]
    assert near == [True] * 4 + [False] * 4
    assert abs(moving[4]["margin/raw"]) < abs(still[4]["margin/raw"])


def test_a_named_sum_is_its_parts(lab: Lab, tmp_path: Path) -> None:
    run_pairs(lab, tmp_path / "name", loss="rpo")
    run_pairs(lab, tmp_path / "parts", loss={"sigmoid": 1, "sft": 1})
    assert outcome(tmp_path / "name") == outcome(tmp_path / "parts")


def test_orpo_is_its_loss_with_another_learning_rate(lab: Lab, tmp_path: Path) -> None:
    run_pairs(lab, tmp_path / "dpo", loss="orpo")
    run_variant(lab, "orpo", tmp_path / "orpo")
    assert outcome(tmp_path / "orpo") == outcome(tmp_path / "dpo")


def test_no_label_smoothing_is_none_also_for_a_loss_with_some_by_default(lab: Lab, tmp_path: Path) -> None:
    plain, robust = run_pairs(lab, tmp_path / "plain"), run_pairs(lab, tmp_path / "robust", loss="robust")
    none = run_pairs(lab, tmp_path / "none", loss="robust", label_smoothing=0.0)
    assert [row["loss"] for row in none] == pytest.approx([row["loss"] for row in plain], rel=1e-4)
    assert robust[-1]["loss"] != pytest.approx(plain[-1]["loss"], rel=1e-2)


def test_the_running_mean_is_that_of_the_journal(lab: Lab, tmp_path: Path) -> None:
    rows = run_pairs(lab, tmp_path / "run", loss="bco_pair")
    rewards = [(row["rewards/chosen"] + row["rewards/rejected"]) / 2 for row in rows]
    means = [sum(rewards[:step]) / max(1, step) for step in range(len(rows))]
    assert [row["delta"] for row in rows] == pytest.approx(means, abs=1e-9)


@pytest.mark.parametrize("variant", ["kto", "dpo"])
def test_a_second_run_computes_no_reference(lab: Lab, tmp_path: Path, variant: str) -> None:
    """What the reference says of a data set, and of its prompts with responses to others, is kept."""
    voices = Listener(), Listener()
    for name, voice in zip("ab", voices, strict=True):
        run_variant(lab, variant, tmp_path / name, voice)
    told = [line for line in voices[1].said if line.startswith("reference log-probabilities")]
    assert len(told) == 1 and f"{48 if variant == 'kto' else 24} read" in told[0]
    assert all(": 0 rows computed" in line for line in told)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
