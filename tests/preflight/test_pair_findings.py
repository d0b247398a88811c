"""Pairs that were identical and sides that say nothing are counted by pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trueup.data.encode import EncodedSet, ReadBack
from trueup.data.store import MappedTrees, TreeWriter
from trueup.data.trees import Tree
from trueup.preflight.pairs import pair_findings

SAYS, NOTHING = (5, 2), (2,)


@pytest.fixture
def data(tmp_path: Path) -> EncodedSet:
    """Five pairs; in three of them a side is nothing but its terminator, in one of these both are."""
    sides = [(SAYS, SAYS), (NOTHING, SAYS), (SAYS, NOTHING), (SAYS, SAYS), (NOTHING, NOTHING)]
    writer = TreeWriter(tmp_path / "trees.arrow")
    for number, responses in enumerate(sides, 1):
        writer.add(number, Tree((1,), responses))
    writer.close({})
    return EncodedSet(MappedTrees(tmp_path / "trees.arrow"), {}, ReadBack(5, 0, ()), "pairs.jsonl", "", "pairs")


def test_a_pair_with_an_empty_side_counts_once(data: EncodedSet) -> None:
    (finding,) = pair_findings(data)
    assert (finding.rule, finding.evidence) == ("empty-responses", {"pairs": 3})


def test_identical_texts_and_identical_tokens_count_together(data: EncodedSet) -> None:
    dropped = {"identical chosen and rejected": 1, "identical chosen and rejected tokens": 2, "longer than 9 tokens": 4}
    finding = pair_findings(replace(data, dropped=dropped))[0]
    assert (finding.rule, finding.evidence) == ("identical-pairs", {"pairs": 3})
    assert "37.5%" in finding.message  # of the eight pairs that could be read
