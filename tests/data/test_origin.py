"""Folders of shards and data sets that `datasets` saved or cached read as one file with all their rows would."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from trueup.data.origin import locate
from trueup.data.read import read_pairs, read_prompts
from trueup.errors import UserError

Rows = Sequence[dict[str, Any]]


def pairs(*numbers: int) -> Rows:
    return [{"prompt": f"p{n}", "chosen": f"c{n}", "rejected": f"r{n}"} for n in numbers]


def arrow(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def saved(folder: Path, *shards: Rows, **state: Any) -> Path:
    """A folder as ``datasets.save_to_disk`` writes it."""
    names = [f"data-{i:05}-of-{len(shards):05}.arrow" for i in range(len(shards))]
    for name, rows in zip(names, shards, strict=True):
        arrow(folder / name, rows)
    listed = {"_data_files": [{"filename": name} for name in names], **state}
    (folder / "state.json").write_text(json.dumps(listed))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def texts(path: str | Path) -> list[str]:
    return [record.chosen for record in read_pairs(path).records]


def refusal(path: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        read_pairs(path).whole()
    assert "\n" not in str(caught.value) and "; " in str(caught.value)
    return str(caught.value)


def test_shards_are_read_in_the_order_in_which_the_folder_lists_them(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", pairs(1, 2, 3), pairs(4))
    assert texts(folder) == ["c1", "c2", "c3", "c4"]
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_data_files": state["_data_files"][::-1]}))
    assert texts(folder) == ["c4", "c1", "c2", "c3"]


def test_places_name_the_shard_and_numbers_go_through_all(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", pairs(1, 2, 3), pairs(4))
    last = read_prompts(folder).records[-1]
    assert last.where == f"{folder}/data-00001-of-00002.arrow row 1" and last.id == "4"


def test_what_datasets_saves_is_read_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    whole = datasets.Dataset.from_list(list(pairs(*range(9))))
    whole.select([7, 2, 5]).save_to_disk(tmp_path / "some")
    whole.save_to_disk(tmp_path / "shards", num_shards=4)
    datasets.DatasetDict({"test": whole.select([0]), "train": whole}).save_to_disk(tmp_path / "splits")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert texts(tmp_path / "some") == ["c7", "c2", "c5"]
    assert texts(tmp_path / "shards") == texts(tmp_path / "splits") == [f"c{n}" for n in range(9)]
    assert texts(f"{tmp_path}/splits:test") == ["c0"]


def test_a_set_of_splits_is_read_as_train_and_says_so(tmp_path: Path) -> None:
    for split, number in (("test", 1), ("train", 2), ("more", 3)):
        saved(tmp_path / split, pairs(number))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["test", "train", "more"]}')
    loaded = read_pairs(tmp_path)
    assert loaded.path == f"{tmp_path}:train" and loaded.records[0].chosen == "c2"
    assert loaded.records[0].where == f"{tmp_path}:train/data-00000-of-00001.arrow row 1"
    assert texts(f"{tmp_path}:more") == ["c3"]
    assert "no split 'tests', only test, train, more" in refusal(f"{tmp_path}:tests")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["test", "more"]}')
    assert "no split 'train'" in refusal(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["more"]}')
    assert texts(tmp_path) == ["c3"]


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_shards_in_a_folder_are_read_by_name_and_never_across_splits(tmp_path: Path, ending: str) -> None:
    names = {"train_prefs-00000-of-00002": 1, "train_prefs-00001-of-00002": 2, "test_prefs-00000-of-00001": 3}
    for name, number in names.items():
        if ending == ".parquet":
            pyarrow.parquet.write_table(pa.Table.from_pylist(list(pairs(number))), tmp_path / f"{name}{ending}")
        else:
            (tmp_path / f"{name}{ending}").write_text(json.dumps(pairs(number)[0]))
    (tmp_path / "README.md").write_text("not data")
    assert texts(f"{tmp_path}:train_prefs") == ["c1", "c2"] and texts(f"{tmp_path}:test_prefs") == ["c3"]
    assert "no split 'train', only test_prefs, train_prefs" in refusal(tmp_path)
    (tmp_path / f"test_prefs-00000-of-00001{ending}").unlink()
    assert texts(tmp_path) == ["c1", "c2"]


def test_files_called_train_and_test_are_splits_and_other_names_are_shards(tmp_path: Path) -> None:
    for name, number in (("b", 2), ("a", 1)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(pairs(number)[0]))
    assert texts(tmp_path) == ["c1", "c2"]
    (tmp_path / "test.jsonl").write_text(json.dumps(pairs(3)[0]))
    assert "only files without a split, test" in refusal(tmp_path)
    (tmp_path / "train.jsonl").write_text(json.dumps(pairs(4)[0]))
    assert texts(tmp_path) == ["c4"] and texts(f"{tmp_path}:test") == ["c3"]
    (tmp_path / "c.parquet").write_bytes(b"")
    assert "several kinds (.jsonl, .parquet)" in refusal(tmp_path)


def test_a_fingerprint_is_of_all_files_in_their_order(tmp_path: Path) -> None:
    def found(name: str, *shards: Rows) -> str:
        return read_pairs(saved(tmp_path / name, *shards)).fingerprint

    sets = [found("a", pairs(1), pairs(2)), found("b", pairs(2), pairs(1)), found("c", pairs(1), pairs(3))]
    assert len({*sets}) == 3 and found("d", pairs(1), pairs(2)) == sets[0]
    alone = saved(tmp_path / "one", pairs(1)) / "data-00000-of-00001.arrow"
    assert read_pairs(tmp_path / "one").fingerprint == hashlib.sha256(alone.read_bytes()).hexdigest()


def test_a_row_of_a_shard_that_is_wrong_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", pairs(1, 2), [*pairs(3), pairs(4)[0] | {"chosen": ""}])
    assert refusal(folder).startswith(f"{folder}/data-00001-of-00002.arrow row 2: field 'chosen'")


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"_data_files": [1]}', "cannot be read"),
        ('{"_data_files": []}', "lists no files"),
        ('{"_data_files": [{"filename": "../data.arrow"}]}', "lists no files of this folder"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow: no such file"),
        ('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_files": [1]}', "flatten_indices"),
    ],
)
def test_a_saved_folder_that_is_not_whole_is_refused(tmp_path: Path, state: str, problem: str) -> None:
    arrow(tmp_path / "data.arrow", pairs(1))
    folder = saved(tmp_path / "set", pairs(1))
    (folder / "state.json").write_text(state)
    assert problem in refusal(folder)


@pytest.mark.parametrize("splits", ["[]", '["..", "a/b", ".hidden"]'])
def test_splits_that_are_no_folders_here_are_none(tmp_path: Path, splits: str) -> None:
    saved(tmp_path, pairs(1))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "dataset_dict.json").write_text(f'{{"splits": {splits}}}')
    assert "has no splits; save" in refusal(tmp_path / "set")


def test_a_split_of_what_has_none_is_refused(tmp_path: Path) -> None:
    assert "leave ':train' away" in refusal(f"{saved(tmp_path, pairs(1))}:train")


@pytest.mark.parametrize("name", ["a/b/c", "a:train", "no_file", "a/b.jsonl", "a/b.csv.gz", "/a/b", "./a", "../a/b"])
def test_other_names_are_files(name: str) -> None:
    assert locate(name).files == (Path(name),) and locate(name).name == str(Path(name))


def test_places_are_told_in_one_way_however_the_path_was_spelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text(json.dumps(pairs(1)[0]) + "\nnot JSON")
    assert next(iter(read_pairs("./a.jsonl").rows)).where == "a.jsonl:1"  # type: ignore[union-attr]
    assert refusal("./a.jsonl").startswith("a.jsonl:2: malformed")


def test_a_file_whose_name_has_a_colon_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a:b.jsonl").write_text(json.dumps(pairs(1)[0]))
    assert texts(tmp_path / "a:b.jsonl") == ["c1"]


def test_without_datasets_a_name_of_the_hub_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "someone/some_pairs: no such file" in refusal("someone/some_pairs")
    assert "pip install datasets" in refusal("someone/some_pairs:test")


def test_a_data_set_in_the_cache_is_read_and_no_other_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    kept = tmp_path / "someone___some_pairs" / "default" / "0.0.0" / "1234"
    arrow(kept / "some_pairs-train.arrow", pairs(1, 2, 3))
    datasets.DatasetInfo(
        features=datasets.Features({name: datasets.Value("string") for name in pairs(1)[0]}),
        dataset_name="some_pairs",
        config_name="default",
        version="0.0.0",
        splits=datasets.SplitDict({"train": datasets.SplitInfo("train", num_examples=3)}),
    ).write_to_directory(str(kept))
    loaded = read_pairs("someone/some_pairs")
    assert loaded.path == "someone/some_pairs:train" and [pair.chosen for pair in loaded.records] == ["c1", "c2", "c3"]
    assert loaded.records[1].where == "someone/some_pairs:train/some_pairs-train.arrow row 2"
    assert "no split 'test'" in refusal("someone/some_pairs:test")
    assert "download it once" in refusal("someone/other")
