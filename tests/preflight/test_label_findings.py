"""Labels before training: both kinds there, and weighing about the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trueup.preflight.labels import label_findings

COUNTS, WEIGHTS = st.integers(1, 10_000), st.floats(0.01, 100)


@pytest.mark.parametrize(("wanted", "unwanted", "kind"), [(7, 0, "wanted"), (0, 7, "unwanted")])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (None, None)])
def test_one_label_alone_is_said(
    wanted: int, unwanted: int, kind: str, weights: tuple[float | None, float | None]
) -> None:
    (finding,) = label_findings(wanted, unwanted, *weights)
    assert finding.rule == "one-label" and f"All 7 responses are {kind}:" in finding.message


@pytest.mark.parametrize(
    ("wanted", "unwanted", "weights", "fine"),
    [
        (50, 50, (1.0, 1.0), True),
        (400, 300, (1.0, 1.0), True),
        (401, 300, (1.0, 1.0), False),
        (49, 50, (1.0, 1.0), False),
        (10, 100, (1.0, 1.0), False),
        (10, 100, (12.0, 1.0), True),
        (100, 10, (1.0, 9.0), True),
        (100, 10, (9.0, 1.0), False),
    ],
)
def test_the_bounds_are_one_and_four_thirds(
    wanted: int, unwanted: int, weights: tuple[float, float], fine: bool
) -> None:
    assert (label_findings(wanted, unwanted, *weights) == []) == fine


def test_a_loss_without_weights_is_not_judged_by_them() -> None:
    assert label_findings(10, 1000, None, None) == []


@given(COUNTS, COUNTS, WEIGHTS, WEIGHTS)
def test_the_remedy_remedies(wanted: int, unwanted: int, desirable: float, undesirable: float) -> None:
    """Any weight inside the range that is named makes the finding go away."""
    found = label_findings(wanted, unwanted, desirable, undesirable)
    assume(found)
    key, low, high = re.findall(r"kto\.(\w+) between (\S+) and (\S+)\.$", found[0].remedy)[0]
    middle = (float(low) + float(high)) / 2
    weights = {"desirable_weight": desirable, "undesirable_weight": undesirable, key: middle}
    assert label_findings(wanted, unwanted, *weights.values()) == []
