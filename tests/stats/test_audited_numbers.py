"""The audited figures of the public write-up, recomputed from its own logs (16 prompts, four arms, two phases)."""

from __future__ import annotations

import json
import os
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trueup.stats.crossed import crossed_effect
from trueup.stats.intervals import mean_interval
from trueup.stats.multiple import Bounded, holm, rank_sets
from trueup.stats.permutation import sign_flip, sign_test
from trueup.stats.power import prompts_needed, smallest_detectable
from trueup.stats.verdicts import Verdict, verdict

ROOT = Path(__file__).parents[2]
LOGS = ROOT / os.environ.get("TRUEUP_DATA", "../shared/data") / "seed_runs"
ARMS = ("sft", "ppo", "grpo", "dpo")

pytestmark = pytest.mark.skipif(not LOGS.is_dir(), reason=f"the write-up's logs are not here: {LOGS}")

MEANS = {
    1: {"sft": (3.01, 4.32), "ppo": (3.99, 4.59), "grpo": (-0.12, 4.29), "dpo": (2.40, 5.43)},
    5: {"sft": (4.13, 4.13), "ppo": (3.52, 3.68), "grpo": (3.31, 4.52), "dpo": (4.15, 3.77)},
}

# phase, a, b: mean of a - b, sd, t interval, sign-flip p, its Holm p, wins/losses/ties, sign p, n for 80 %
CONTRASTS = [
    (1, "ppo", "sft", 0.98, 5.34, -1.86, 3.83, 0.481, 1.00, (8, 5, 3), 0.58, 234),
    (1, "grpo", "sft", -3.12, 5.93, -6.29, 0.04, 0.054, 0.27, (5, 11, 0), 0.21, 31),
    (1, "dpo", "sft", -0.61, 6.44, -4.04, 2.83, 0.711, 1.00, (8, 8, 0), 1.0, 890),
    (1, "grpo", "ppo", -4.11, 5.70, -7.14, -1.07, 0.013, 0.080, (2, 14, 0), 0.004, 18),
    (1, "dpo", "ppo", -1.59, 7.33, -5.50, 2.32, 0.395, 1.00, (7, 9, 0), 0.80, 169),
    (1, "dpo", "grpo", 2.52, 5.27, -0.29, 5.33, 0.075, 0.30, (12, 4, 0), 0.077, 37),
    (5, "ppo", "sft", -0.61, 2.69, -2.04, 0.82, 0.402, 1.00, (4, 5, 7), 1.0, 156),
    (5, "grpo", "sft", -0.82, 2.78, -2.30, 0.66, 0.264, 1.00, (2, 8, 6), 0.11, 93),
    (5, "dpo", "sft", 0.018, 2.20, -1.15, 1.19, 0.978, 1.00, (4, 7, 5), 0.55, 120709),
    (5, "grpo", "ppo", -0.21, 3.24, -1.94, 1.51, 0.804, 1.00, (5, 6, 5), 1.0, 1853),
    (5, "dpo", "ppo", 0.63, 2.48, -0.70, 1.95, 0.334, 1.00, (8, 4, 4), 0.39, 126),
    (5, "dpo", "grpo", 0.84, 2.62, -0.56, 2.23, 0.215, 1.00, (7, 6, 3), 1.0, 79),
]


@cache
def scores(phase: int) -> dict[str, NDArray[np.float64]]:
    """Return the score of each arm on each prompt, prompts in one order for all arms and both phases."""
    if phase == 1:
        rows = json.loads((LOGS / "comparison_phase1.json").read_text())["per_prompt"]
        return {arm: np.array([row[arm] for row in rows]) for arm in ARMS}
    order = [row["prompt"] for row in json.loads((LOGS / "comparison_phase1.json").read_text())["per_prompt"]]
    found = {}
    for arm in ARMS:
        samples = json.loads((LOGS / f"{arm}_phase{phase}_metrics.json").read_text())["samples"]
        rewards = {sample["prompt"]: sample["reward"] for sample in samples}
        found[arm] = np.array([rewards[prompt] for prompt in order])
    return found


def difference(phase: int, a: str, b: str) -> NDArray[np.float64]:
    return scores(phase)[a] - scores(phase)[b]


@pytest.mark.parametrize("phase", [1, 5])
@pytest.mark.parametrize("arm", ARMS)
def test_means_and_spreads(phase: int, arm: str) -> None:
    values = scores(phase)[arm]
    assert (mean_interval(values).estimate, values.std(ddof=1)) == pytest.approx(MEANS[phase][arm], abs=0.0055)


@pytest.mark.parametrize("row", CONTRASTS, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}")
def test_contrasts(row) -> None:
    phase, a, b, mean, sd, low, high, p_flip, _, (wins, losses, ties), p_sign, n_needed = row
    d = difference(phase, a, b)
    effect = crossed_effect(d[None])
    assert [effect.estimate, d.std(ddof=1), effect.low, effect.high] == pytest.approx([mean, sd, low, high], abs=0.0055)
    assert sign_flip(d) == pytest.approx(p_flip, abs=0.00055)
    assert ((d > 0).sum(), (d < 0).sum(), (d == 0).sum()) == (wins, losses, ties)
    assert sign_test(wins, losses) == pytest.approx(p_sign, abs=0.0055)
    # n goes with the inverse square of the effect: at an effect of 0.018 the audit's last digits are rounding.
    assert prompts_needed(d.std(ddof=1), d.mean()) == pytest.approx(n_needed, rel=0.0005)


@pytest.mark.parametrize("phase", [1, 5])
def test_no_difference_in_means_survives_holm_and_there_is_no_ranking(phase: int) -> None:
    rows = [row for row in CONTRASTS if row[0] == phase]
    adjusted = holm([sign_flip(difference(phase, row[1], row[2])) for row in rows])
    assert adjusted == pytest.approx([row[8] for row in rows], abs=0.0055)
    effects = [crossed_effect(difference(phase, row[1], row[2])[None]) for row in rows]
    verdicts: dict[tuple[str, str], Verdict | Bounded] = {
        (row[1], row[2]): verdict(effect, p, margin=0.5) for row, effect, p in zip(rows, effects, adjusted, strict=True)
    }
    assert set(verdicts.values()) == {"inconclusive"}
    assert rank_sets(ARMS, verdicts) == dict.fromkeys(ARMS, (1, 4))


def test_on_counts_alone_one_contrast_survives() -> None:
    adjusted = holm([sign_test(*row[9][:2]) for row in CONTRASTS if row[0] == 1])
    assert sorted(adjusted)[:2] == [pytest.approx(0.025, abs=0.0005), pytest.approx(0.38, abs=0.01)]


@pytest.mark.parametrize(("phase", "smallest", "largest"), [(1, 4.0, 5.5), (5, 1.6, 2.4)])
def test_what_sixteen_prompts_could_have_seen(phase: int, smallest: float, largest: float) -> None:
    spreads = [difference(phase, a, b).std(ddof=1) for a, b in combinations(ARMS, 2)]
    found = sorted(smallest_detectable(sd, 16) for sd in spreads)
    assert (found[0], found[-1]) == pytest.approx((smallest, largest), abs=0.055)


@pytest.mark.parametrize(
    ("arm", "mean", "p"), [("sft", 1.12, 0.15), ("ppo", -0.47, 0.57), ("grpo", 3.43, 0.029), ("dpo", 1.75, 0.32)]
)
def test_effects_of_the_second_phase(arm: str, mean: float, p: float) -> None:
    change = scores(5)[arm] - scores(1)[arm]
    assert change.mean() == pytest.approx(mean, abs=0.0055)
    assert sign_flip(change) == pytest.approx(p, abs=0.0055)


def test_the_reversal_is_not_established() -> None:
    contrast = difference(5, "dpo", "ppo") - difference(1, "dpo", "ppo")
    assert contrast.mean() == pytest.approx(2.21, abs=0.0055)
    assert sign_flip(contrast) == pytest.approx(0.28, abs=0.0055)
