"""The store of log-probabilities: what was written comes back, the rest is missing, another key is another store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.errors import UserError
from trueup.runtime.logps_store import LogpsStore

PARTS = {"weights": "w", "tokens": "t", "dtype": "float32"}


def offsets(sizes: list[int]) -> np.ndarray:
    return np.cumsum([0, *sizes])


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8), data=st.data())
def test_rows_come_back_in_any_order_and_only_those_written(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    values = [np.arange(size, dtype=np.float32) + 100 * row for row, size in enumerate(sizes)]
    written = data.draw(st.lists(st.sampled_from(range(len(sizes))), unique=True))
    folder = tmp_path_factory.mktemp("store")
    LogpsStore(folder, PARTS, offsets(sizes)).write(
        written, np.concatenate([np.zeros(0), *(values[r] for r in written)])
    )
    again = LogpsStore(folder, PARTS, offsets(sizes))
    everything = list(range(len(sizes)))
    assert again.missing(everything) == [row for row in everything if row not in written]
    asked = data.draw(st.permutations(written))
    np.testing.assert_array_equal(again.read(asked), np.concatenate([np.zeros(0), *(values[r] for r in asked)]))


def test_a_row_that_was_not_written_is_refused_and_not_zero(tmp_path: Path) -> None:
    store = LogpsStore(tmp_path, PARTS, offsets([2, 2]))
    store.write([1], np.ones(2, np.float32))
    with pytest.raises(KeyError, match="row 0"):
        store.read([1, 0])


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_the_key_makes_another_store(tmp_path: Path, part: str) -> None:
    LogpsStore(tmp_path, PARTS, offsets([1])).write([0], np.ones(1, np.float32))
    other = LogpsStore(tmp_path, {**PARTS, part: "another"}, offsets([1]))
    assert other.missing([0]) == [0]


def test_a_copied_folder_serves(tmp_path: Path) -> None:
    store = LogpsStore(tmp_path / "here", PARTS, offsets([3]))
    store.write([0], np.arange(3, dtype=np.float32))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert LogpsStore(tmp_path / "there", PARTS, offsets([3])).read([0]).tolist() == [0.0, 1.0, 2.0]
    assert json.loads((store.folder / "about.json").read_text())["weights"] == "w"


def test_a_cut_file_is_refused_with_its_place(tmp_path: Path) -> None:
    store = LogpsStore(tmp_path, PARTS, offsets([3]))
    (store.folder / "logps.f32").write_bytes(b"1234")
    with pytest.raises(UserError, match=rf"{store.folder.name}.*4 bytes, not 12.*another --kto\.store"):
        LogpsStore(tmp_path, PARTS, offsets([3]), "kto.store")


def test_values_do_not_count_before_they_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed between the values and their mark leaves a row that is computed again."""
    store = LogpsStore(tmp_path, PARTS, offsets([2]))

    def killed() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store._logps, "flush", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write([0], np.ones(2, np.float32))
    assert LogpsStore(tmp_path, PARTS, offsets([2])).missing([0]) == [0]
