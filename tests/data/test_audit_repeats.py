"""Repetitions, contradictions and near-equal sides, on rows where each can be counted by eye."""

from __future__ import annotations

import itertools

import pytest
from audit_rows import examples, judged, pairs
from hypothesis import given
from hypothesis import strategies as st

from trueup.data.audit_repeats import contradictions, likeness, repeats

TEXT = st.text(st.sampled_from("ab c\n"), min_size=1, max_size=6)


def test_rows_that_repeat_and_prompts_that_are_shared() -> None:
    found = repeats(pairs([("p", "a", "b"), ("q", "a", "b"), ("p", "a", "b"), ("p", "a", "c"), ("p", "a", "b")]))
    assert found["identical_rows"]["places"] == ["f:3 (as f:1)", "f:5 (as f:1)"]
    shared = found["repeated_prompts"]
    assert (shared["count"], shared["share"], shared["prompts"], shared["largest"]) == (4, 0.8, 2, 4)


def test_a_pair_the_other_way_round_is_no_repetition() -> None:
    assert repeats(pairs([("p", "a", "b"), ("p", "b", "a")]))["identical_rows"]["count"] == 0


def test_a_judged_response_repeats_only_under_the_same_label() -> None:
    found = repeats(judged([("p", "a", True), ("p", "a", False), ("p", "a", True)]))
    assert found["identical_rows"]["places"] == ["f:3 (as f:1)"]
    assert repeats(examples([("p", "a"), ("p", "b"), ("q", "a"), ("p", "b")]))["identical_rows"]["count"] == 1


def test_reversed_pairs_and_responses_on_both_sides() -> None:
    rows = [("p", "a", "b"), ("p", "b", "a"), ("q", "b", "a"), ("p", "b", "c"), ("q", "c", "d")]
    found = contradictions(pairs(rows))
    assert found["reversed"]["places"] == ["f:2 against f:1"]  # row 3 has another prompt
    # b is rejected in row 1 and chosen in row 4 of the same prompt; row 1's own a is rejected by row 2.
    assert found["both_sides"]["places"] == ["f:1 and f:2", "f:4 and f:1"]


def test_judged_contradictions_are_the_same_response_with_both_labels() -> None:
    rows = [("p", "a", True), ("p", "a", False), ("q", "b", True), ("q", "c", False)]
    assert contradictions(judged(rows))["reversed"]["places"] == ["f:1 against f:2"]
    assert contradictions(examples([("p", "a"), ("p", "a")]))["reversed"]["count"] == 0


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6))
def test_a_file_and_its_mirror_contradict_each_other_in_every_row(rows: list[tuple[str, str, str]]) -> None:
    rows = [row for row in dict.fromkeys(rows) if row[1] != row[2]]
    own = {(p, c, r) for p, c, r in rows if (p, r, c) in rows}
    mirrored = contradictions(pairs([*rows, *((p, r, c) for p, c, r in rows)]))["reversed"]["count"]
    # The mirror's rows contradict the file's; rows that the file itself has both ways do so twice.
    assert mirrored == len(rows) + len(own) // 2


def test_sides_that_hardly_differ() -> None:
    found = likeness(pairs([("p", "A b", "a  B\n"), ("p", "one two", "one"), ("p", "one", "one two"), ("p", "x", "y")]))
    assert found is not None
    assert found["near_identical"]["places"] == ["f:1"]
    assert found["begins_with"]["places"] == ["f:2 (rejected is the shorter)", "f:3 (chosen is the shorter)"]
    assert found["shared_start"] == pytest.approx((0 + 3 / 7) / 2)
    assert likeness(examples([("p", "a")])) is None


@given(TEXT, TEXT)
def test_the_common_beginning_is_the_common_prefix(first: str, second: str) -> None:
    found = likeness(pairs([("p", first, second)]))
    assert found is not None
    common = list(itertools.takewhile(lambda both: both[0] == both[1], zip(first, second, strict=False)))
    assert found["shared_start"] == len(common) / max(len(first), len(second))
