"""How a step is cut into micro-batches changes nothing: eight trees at once equal eight trees one by one."""

from __future__ import annotations

import pytest
import torch
from step_cases import CASES, LENGTHS, drawn, recorded_step

ONE_EACH, ALL_AT_ONCE = 1, 1_000_000
# Scores, values and behaviour log-probabilities are float32 by contract, so only these methods are exact in float64.
FLOAT32_ONLY = ("reward", "ppo", "ppo-loss-kl")
EXACT = [name for name in CASES if name not in FLOAT32_ONLY]
SETTINGS = [(name, torch.float32, 1e-6) for name in CASES] + [(name, torch.float64, 1e-12) for name in EXACT]


@pytest.mark.parametrize(("name", "dtype", "tolerance"), SETTINGS)
def test_one_by_eight_equals_eight_by_one(name: str, dtype: torch.dtype, tolerance: float) -> None:
    results = []
    for size, number in ((ALL_AT_ONCE, 1), (ONE_EACH, len(LENGTHS))):
        model, batches = drawn(CASES[name], dtype, size)
        assert len(batches) == number
        results.append(recorded_step(model, CASES[name].objective(dtype), batches))
    (whole, expected), (parts, found) = results
    assert float((found - expected).norm() / expected.norm()) < tolerance
    assert parts.keys() == whole.keys()
    for metric, value in whole.items():
        assert parts[metric] == pytest.approx(value, rel=tolerance, abs=tolerance), metric


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_the_comparison_sees_clipping_and_lengths_of_all_sizes(name: str) -> None:
    model, batches = drawn(CASES[name], torch.float32, ONE_EACH)
    lengths = torch.cat([torch.bincount(batch.trees.branch) for batch in batches])
    assert lengths.min() == 1
    assert lengths.max() >= 10
    metrics, _ = recorded_step(model, CASES[name].objective(torch.float32), batches)
    assert 0.01 < metrics["clip_ratio/region_mean"] < 0.9


@pytest.mark.parametrize("name", ["sft", "dapo", "ppo"])
def test_a_mean_of_micro_batch_means_would_not_pass(name: str) -> None:
    """The classic accumulation mistake, made on purpose: it is far outside the tolerance on these lengths."""
    model, batches = drawn(CASES[name], torch.float32, ALL_AT_ONCE)
    _, right = recorded_step(model, CASES[name].objective(torch.float32), batches)
    parts = []
    for index in range(len(LENGTHS)):
        model, batches = drawn(CASES[name], torch.float32, ONE_EACH)
        parts.append(recorded_step(model, CASES[name].objective(torch.float32), [batches[index]])[1])
    wrong = torch.stack(parts).mean(dim=0)
    assert float((wrong - right).norm() / right.norm()) > 0.05
