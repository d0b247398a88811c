"""A file is read when somebody loops over its rows, and anew for every loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trueup.data import read
from trueup.data.read import read_pairs, read_prompts
from trueup.data.records import Dropped
from trueup.errors import UserError

ROWS = [{"prompt": "p", "chosen": chosen, "rejected": "x", "note": ""} for chosen in "axbxc"]


def write(folder: Path, *lines: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path, *map(json.dumps, ROWS))


def test_a_fault_is_met_when_its_row_is(tmp_path: Path) -> None:
    loaded = read_pairs(write(tmp_path, *map(json.dumps, ROWS), "not JSON"))
    rows = iter(loaded.rows)
    assert [next(rows) for _ in ROWS] == list(read_pairs(write(tmp_path, *map(json.dumps, ROWS))).rows)
    loaded = read_pairs(write(tmp_path, *map(json.dumps, ROWS), "not JSON"))
    with pytest.raises(UserError, match=r"rows\.jsonl:6: malformed"):
        list(loaded.rows)
    with pytest.raises(UserError, match=r"rows\.jsonl:6: malformed"):
        loaded.whole()


def test_every_loop_reads_all_rows_in_their_order(path: Path) -> None:
    loaded = read_pairs(path)
    assert list(loaded.rows) == list(loaded.rows)
    assert [isinstance(row, Dropped) for row in loaded.rows] == [False, True, False, True, False]


def test_what_was_read_whole_needs_the_file_no_more(path: Path) -> None:
    lazy, whole = read_pairs(path), read_pairs(path).whole()
    expected = (lazy.records, lazy.dropped, lazy.unused)
    path.unlink()
    assert (whole.records, whole.dropped, whole.unused) == expected
    assert expected[1:] == ({"identical chosen and rejected": 2}, ("note",))


def test_records_are_picked_by_the_number_of_their_row(path: Path) -> None:
    loaded = read_pairs(path)
    assert [record.chosen for record in loaded.pick([5, 1])] == ["a", "c"]
    assert loaded.pick([2]) == []  # a row that was left out is no record


def test_ids_with_one_hash_are_two_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "hash", lambda _: 7, raising=False)
    rows = [{"prompt": "p", "id": name} for name in ("a", "b", "c")]
    assert len(read_prompts(write(tmp_path, *map(json.dumps, rows))).records) == 3
    with pytest.raises(UserError, match=r"rows\.jsonl:4: field 'id' is 'b', as in .*rows\.jsonl:2"):
        read_prompts(write(tmp_path, *map(json.dumps, [*rows, rows[1]]))).whole()
