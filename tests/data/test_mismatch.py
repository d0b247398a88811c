"""Prompts with the responses of other rows: a partner for every row, by the data alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.data.encode import Bounds, EncodedSet, ReadBack
from trueup.data.mismatch import mismatched
from trueup.data.store import MappedTrees, TreeWriter
from trueup.data.trees import Tree
from trueup.errors import UserError

PROMPTS = st.sampled_from([(1,), (2,), (1, 2), (3, 3, 3)])
RESPONSES = st.lists(st.integers(5, 9), min_size=1, max_size=4).map(tuple)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "cache"))


def encoded(folder: Path, rows: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> EncodedSet:
    """A set whose rows have the numbers 10, 20, ... in their file."""
    writer = TreeWriter(folder / "set.arrow")
    for number, (prompt, response) in enumerate(rows, 1):
        writer.add(10 * number, Tree(prompt, (response,)))
    writer.close({})
    return EncodedSet(MappedTrees(folder / "set.arrow"), {}, ReadBack(len(rows), 0, ()), "j.jsonl", "f", "judged")


@given(st.lists(st.tuples(PROMPTS, RESPONSES), min_size=2, max_size=12))
def test_every_row_has_the_response_of_the_next_row_with_another_prompt(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    data = encoded(tmp_path_factory.mktemp("sets"), rows)
    if len({prompt for prompt, _ in rows}) == 1:
        with pytest.raises(UserError, match="row 10: all rows have the same prompt"):
            mismatched(data, Bounds(64))
        return
    for row, tree in enumerate(mismatched(data, Bounds(64)).trees):
        later = [*rows[row + 1 :], *rows[:row]]
        assert tree == Tree(rows[row][0], (next(y for x, y in later if x != rows[row][0]),))


def test_what_does_not_fit_is_passed_over_and_nothing_is_cut(tmp_path: Path) -> None:
    rows = [((1, 1, 1), (5,)), ((2,), (5, 6, 7)), ((3,), (8,))]
    found = mismatched(encoded(tmp_path, rows), Bounds(64, max_length=4))
    assert [tree.responses[0] for tree in found.trees] == [(8,), (8,), (5,)]
    with pytest.raises(UserError, match="row 10: no response to another prompt fits"):
        mismatched(encoded(tmp_path, rows[:2]), Bounds(64, max_length=4))


def test_row_numbers_stay_and_the_set_has_a_digest_of_its_own(tmp_path: Path) -> None:
    data = encoded(tmp_path, [((1,), (5,)), ((2,), (6,))])
    found = mismatched(data, Bounds(64))
    assert found.row_numbers.tolist() == data.row_numbers.tolist() == [10, 20]
    assert found.digest != data.digest
    assert mismatched(data, Bounds(64)).digest == found.digest
