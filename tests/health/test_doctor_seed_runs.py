"""The doctor on the public write-up's own logs, against figures that were audited by hand and by other code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trueup.health.doctor import NAMES, Diagnosis, compare, diagnose, judge_scores
from trueup.health.findings import Finding
from trueup.health.readers.sources import open_path
from trueup.health.readers.translate import Reading, Told

ROOT = Path(__file__).parents[2]
LOGS = ROOT / os.environ.get("TRUEUP_DATA", "../shared/data") / "seed_runs"
ARMS = ("sft", "ppo", "grpo", "dpo")

pytestmark = pytest.mark.skipif(not LOGS.is_dir(), reason=f"the write-up's logs are not here: {LOGS}")


def log(beta: str) -> tuple[Reading, Diagnosis]:
    ((reading,), _) = open_path(LOGS / f"dpo_beta{beta}_batch1.json", Told(), NAMES)
    return reading, diagnose(reading.log)


def by_rule(findings: Any) -> dict[str, Finding]:
    return {finding.rule: finding for finding in findings}


@pytest.mark.parametrize(
    ("beta", "raw", "scaled", "weight", "gone", "effective", "margin_at_10"),
    [
        ("0.1", (118, 599), (11.8, 15.9, 59.9), 0.083, 0.75, 0.19, 1.08),
        ("0.3", (35, 262), (10.5, 19.6, 78.5), 0.144, 0.70, 0.20, 0.82),
    ],
)
def test_each_log(
    beta: str, raw: Any, scaled: Any, weight: float, gone: float, effective: float, margin_at_10: float
) -> None:
    reading, diagnosis = log(beta)
    findings = by_rule(diagnosis.findings)
    assert set(findings) == {"saturation", "margin-without-beta", "gradient-gone", "exact-zero-margin"}
    assert (reading.log.method, reading.unknown, diagnosis.steps) == ("dpo", (), (10, 200, 20))
    unit = findings["margin-without-beta"].evidence
    assert unit["beta"] == pytest.approx(float(beta), rel=1e-3)
    assert (unit["raw_median"], unit["raw_max"]) == pytest.approx(raw, abs=0.5)
    assert (unit["scaled_median"], unit["scaled_mean"], unit["scaled_max"]) == pytest.approx(scaled, abs=0.05)
    lost = findings["gradient-gone"].evidence
    assert lost["mean_weight"] == pytest.approx(weight, abs=0.0005) and lost["share"] == pytest.approx(gone)
    assert lost["effective_share"] == pytest.approx(effective, abs=0.005)
    zero = findings["exact-zero-margin"]
    assert (zero.first_step, zero.evidence["zero_steps"], zero.evidence["moved_at"]) == (20, [20], 10)
    assert zero.evidence["margin_then"] == pytest.approx(margin_at_10, abs=0.005)
    assert findings["saturation"].evidence["rewards/margins"] == pytest.approx(scaled[0], abs=0.05)


def test_both_logs_together() -> None:
    findings = by_rule(compare([(beta, log(beta)[0].log) for beta in ("0.1", "0.3")]))
    beta = findings["beta-direction"].evidence
    assert beta["raw_max"] == pytest.approx([599, 262], abs=0.5)
    assert beta["scaled_max"] == pytest.approx([59.9, 78.5], abs=0.05)
    assert beta["scaled_mean"] == pytest.approx([15.9, 19.6], abs=0.05)
    assert findings["same-examples"].evidence["spearman"] == pytest.approx(0.92, abs=0.005)


def scores(*names: str) -> dict[str, Finding]:
    return by_rule(judge_scores([table for name in names for table in open_path(LOGS / name, Told(), NAMES)[1]]))


CONTRASTS = {
    1: {("ppo", "sft"): (0.98, 0.481, 1.0), ("grpo", "sft"): (-3.12, 0.054, 0.27), ("dpo", "sft"): (-0.61, 0.711, 1.0)}
    | {
        ("grpo", "ppo"): (-4.11, 0.013, 0.08),
        ("dpo", "ppo"): (-1.59, 0.395, 1.0),
        ("dpo", "grpo"): (2.52, 0.075, 0.30),
    },
    5: {("ppo", "sft"): (-0.61, 0.402, 1.0), ("grpo", "sft"): (-0.82, 0.264, 1.0), ("dpo", "sft"): (0.018, 0.978, 1.0)}
    | {("grpo", "ppo"): (-0.21, 0.804, 1.0), ("dpo", "ppo"): (0.63, 0.334, 1.0), ("dpo", "grpo"): (0.84, 0.215, 1.0)},
}


@pytest.mark.parametrize("phase", [1, 5])
def test_no_difference_survives(phase: int) -> None:
    finding = scores(*(f"{arm}_phase{phase}_metrics.json" for arm in ARMS))["unestablished-differences"]
    assert finding.severity == "warning"
    rows = {(r["a"].split("_")[0], r["b"].split("_")[0]): r for r in finding.evidence["contrasts"]}
    for pair, (mean, p, p_holm) in CONTRASTS[phase].items():
        assert rows[pair]["mean"] == pytest.approx(mean, abs=0.0055)
        assert (rows[pair]["p"], rows[pair]["p_holm"]) == pytest.approx((p, p_holm), abs=0.0055)


def test_the_comparison_file_says_the_same_as_the_files_of_the_arms() -> None:
    rows = scores("comparison_phase1.json")["unestablished-differences"].evidence["contrasts"]
    means = {(row["a"], row["b"]): row["mean"] for row in rows}
    assert means == pytest.approx({pair: mean for pair, (mean, _, _) in CONTRASTS[1].items()}, abs=0.0055)


def test_the_first_phase_was_not_sampled_alike() -> None:
    findings = scores(*(f"{arm}_phase1_metrics.json" for arm in ARMS))
    uneven = findings["unequal-protocol"].evidence
    assert uneven["draws"] == {f"{arm}_phase1": 4 if arm == "grpo" else 1 for arm in ARMS}
    assert uneven["longest"]["sft_phase1"] > 2 * uneven["longest"]["ppo_phase1"]  # 128 tokens against 64
    noise = findings["draw-noise"].evidence
    assert (noise["spread"], noise["standard_error"]) == pytest.approx((3.66, 0.9), abs=0.02)


def test_ties_of_the_second_phase_are_equal_answers() -> None:
    findings = scores(*(f"{arm}_phase5_metrics.json" for arm in ARMS))
    counts = findings["identical-responses"].evidence["identical"]
    assert [counts[f"sft_phase5, {arm}_phase5"] for arm in ARMS[1:]] == [7, 6, 5]
    assert "unequal-protocol" not in findings


def test_the_gain_of_sft_is_partly_where_its_texts_end() -> None:
    cuts = scores("sft_phase1_metrics.json", "sft_phase5_metrics.json")["cut-changes-score"].evidence["cuts"]
    assert len(cuts) == 3
    assert sum(cut["shorter"] - cut["longer"] for cut in cuts) == pytest.approx(7.36, abs=0.01)
    assert {(round(cut["longer"], 2), round(cut["shorter"], 2)) for cut in cuts} >= {(0.11, 5.62)}
