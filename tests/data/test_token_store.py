"""Trees that went through a file are the trees that were written, and their digest tells any other set apart."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.data import store
from trueup.data.order import micro_batches
from trueup.data.store import MappedTrees, TreeWriter
from trueup.data.trees import Tree

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)
TREES = st.lists(st.builds(Tree, IDS.filter(bool), st.lists(IDS, max_size=3).map(tuple)), max_size=12)
# Few ids and short lists: any cut of a flat row of ids that the digest cannot see is soon found.
SMALL = st.lists(st.integers(0, 1), max_size=2).map(tuple)
SMALL_TREES = st.lists(st.builds(Tree, SMALL, st.lists(SMALL, max_size=2).map(tuple)), max_size=2)
NAMES = count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def kept(folder: Path, trees: Sequence[Tree], block: int = 3) -> MappedTrees:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "BLOCK", block)
        path = folder / f"{next(NAMES)}.arrow"
        writer = TreeWriter(path)
        for number, tree in enumerate(trees):
            writer.add(10 + 2 * number, tree)
        writer.close({"told": len(trees)})
        return MappedTrees(path)


@given(trees=TREES)
@settings(max_examples=60)
def test_what_is_read_is_what_was_written(folder: Path, trees: list[Tree]) -> None:
    mapped = kept(folder, trees)
    assert list(mapped) == trees and len(mapped) == len(trees) and mapped.facts == {"told": len(trees)}
    assert mapped.row_numbers.tolist() == [10 + 2 * i for i in range(len(trees))]
    for index in range(len(trees) + 1):
        earlier = [response for tree in trees[:index] for response in tree.responses]
        assert mapped.responses_before[index] == len(earlier)
        assert mapped.response_tokens_before(index) == sum(map(len, earlier))


@given(trees=TREES.filter(bool), data=st.data())
@settings(max_examples=60)
def test_it_is_indexed_as_a_tuple_is(folder: Path, trees: list[Tree], data: st.DataObject) -> None:
    mapped, index = kept(folder, trees), data.draw(st.integers(-15, 15))
    if -len(trees) <= index < len(trees):
        assert mapped[index] == trees[index]
    else:
        with pytest.raises(IndexError):
            mapped[index]
    some = data.draw(st.slices(len(trees)))
    assert mapped[some] == tuple(trees[some])


@given(trees=TREES, block=st.integers(1, 5))
@settings(max_examples=30)
def test_arrays_about_trees_are_those_of_a_list(folder: Path, trees: list[Tree], block: int) -> None:
    mapped = kept(folder, trees, block)
    for about in (
        store.sizes_of,
        store.plain_sizes_of,
        store.response_lengths_of,
        store.responses_before,
        store.response_tokens_before,
    ):
        assert np.array_equal(about(mapped), about(trees)), about.__name__
    for plain in (False, True):
        assert micro_batches(mapped, 12, plain) == micro_batches(trees, 12, plain)


@given(trees=SMALL_TREES, others=SMALL_TREES, block=st.integers(1, 3))
@settings(max_examples=300)
def test_a_digest_is_shared_by_equal_sets_and_no_others(
    folder: Path, trees: list[Tree], others: list[Tree], block: int
) -> None:
    first, second = kept(folder, trees).digest, kept(folder, others, block).digest
    assert (first == second) == (trees == others)


def test_a_digest_is_the_same_on_every_machine(folder: Path) -> None:
    trees = [Tree((1, 2, 3), ((4, 5), (6,))), Tree((7,), ()), Tree((2**31 - 1,), ((), (0,)))]
    lengths_of_prompts, responses_of_trees, lengths_of_responses = (3, 1, 1), (2, 0, 2), (2, 1, 0, 1)
    prompts, responses = (1, 2, 3, 7, 2**31 - 1), (4, 5, 6, 0)
    parts = (lengths_of_prompts, responses_of_trees, lengths_of_responses, prompts, responses)
    hashed = b"".join(hashlib.sha256(struct.pack(f"<{len(part)}i", *part)).digest() for part in parts)
    assert {kept(folder, trees, block).digest for block in (1, 2, 9)} == {hashlib.sha256(hashed).hexdigest()}


def test_no_list_is_longer_than_ids_of_the_file_allow(folder: Path) -> None:
    with pytest.raises(OverflowError):
        kept(folder, [Tree((2**31,), ())])
