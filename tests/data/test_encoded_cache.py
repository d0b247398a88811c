"""What was encoded once is found again, with the same counts; anything it depends on makes it another set."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from trueup.data import cache
from trueup.data.encode import Bounds, EncodedSet, encode_examples, encode_pairs, encode_prompts
from trueup.data.read import read_examples, read_pairs, read_prompts
from trueup.data.store import TreeWriter
from trueup.data.template import Encoder, make_encoder
from trueup.data.trees import Tree
from trueup.errors import UserError
from trueup.models.hub import wrap_tokenizer
from trueup.models.tokenizer import train_bpe

WORDS = "the cat sat on a mat and saw one more cat"
ROWS = [
    {"prompt": "the cat", "chosen": "sat on a mat", "rejected": "saw"},
    {"prompt": "the cat", "chosen": "saw", "rejected": "saw"},
    {"prompt": "one cat", "chosen": " saw", "rejected": "sat"},
    {"prompt": "one cat", "chosen": WORDS, "rejected": "sat"},
]
BOUNDS = Bounds(64, max_length=14)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return make_encoder(wrap_tokenizer(train_bpe([WORDS], 300)))


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "encoded"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pairs(path: Path, encoder: Encoder, bounds: Bounds = BOUNDS) -> EncodedSet:
    return encode_pairs(read_pairs(path), encoder, bounds)


def told(data: EncodedSet) -> Any:
    return (
        *(list(data.trees), data.dropped, data.row_numbers.tolist(), data.read_back, data.digest, data.describe()),
        *(data.fingerprint, data.shape, data.path),
    )


def silent(encoder: Encoder) -> Encoder:
    """The same encoder, unable to encode."""
    same = make_encoder(encoder.tokenizer)
    mute = replace(same, tokenizer=None)
    mute.__dict__["fingerprint"] = same.fingerprint
    return mute


def test_the_second_time_nothing_is_encoded_and_everything_is_told_again(path: Path, encoder: Encoder) -> None:
    first = pairs(path, encoder)
    assert len(first) == 2 and first.dropped and first.read_back.wrong == 1
    assert told(pairs(path, silent(encoder))) == told(first)


def test_a_copy_elsewhere_is_found_and_speaks_of_its_own_lines(tmp_path: Path, path: Path, encoder: Encoder) -> None:
    pairs(path, encoder)
    copy = write(tmp_path / "elsewhere" / "copy.jsonl", ROWS)
    found = pairs(copy, silent(encoder))
    assert found.path == str(copy) and found.read_back.places == (f"{copy}:3",)


OTHERS: dict[str, Callable[[Path, Encoder], EncodedSet]] = {
    "limit": lambda path, encoder: encode_pairs(read_pairs(path, limit=1), encoder, BOUNDS),
    "length": lambda path, encoder: pairs(path, encoder, Bounds(64, max_length=13)),
    "context": lambda path, encoder: pairs(path, encoder, Bounds(65, max_length=14)),
    "room": lambda path, encoder: pairs(path, encoder, Bounds(64, max_length=14, extra=1)),
    "kind": lambda path, encoder: encode_prompts(read_prompts(path), encoder, BOUNDS),
    "what is read of a row": lambda path, encoder: encode_prompts(read_pairs(path), encoder, BOUNDS),  # type: ignore
    "content": lambda path, encoder: pairs(write(path, ROWS[:3]), encoder),
    "template": lambda path, encoder: pairs(path, make_encoder(_with(encoder, chat_template=TEMPLATE))),
    "vocabulary": lambda path, encoder: pairs(path, make_encoder(wrap_tokenizer(train_bpe([WORDS], 275)))),
    "added token": lambda path, encoder: pairs(path, make_encoder(_with(encoder, extra_special_tokens=["mat"]))),
}
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}!"


def _with(encoder: Encoder, **settings: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        encoder.tokenizer.save_pretrained(folder)
        return type(encoder.tokenizer).from_pretrained(folder, **settings)


@pytest.mark.parametrize("what", OTHERS)
def test_anything_that_the_trees_depend_on_makes_another_set(
    path: Path, encoder: Encoder, store: Path, what: str
) -> None:
    pairs(path, encoder)
    OTHERS[what](path, encoder)
    assert len(list(store.iterdir())) == 2


def test_the_same_bytes_read_as_another_format_are_another_set(tmp_path: Path, encoder: Encoder) -> None:
    content = "prompt\nthe cat\n"
    sets = []
    for name in ("rows.csv", "rows.txt"):
        (tmp_path / name).write_text(content)
        sets.append(encode_prompts(read_prompts(tmp_path / name), encoder, BOUNDS))
    assert [len(data) for data in sets] == [1, 2]


def test_a_fingerprint_of_a_tokenizer_lasts_over_processes(encoder: Encoder) -> None:
    first, second = (make_encoder(_with(encoder)).fingerprint for _ in range(2))
    assert first == second


def test_a_damaged_file_is_written_again(path: Path, encoder: Encoder, store: Path) -> None:
    expected = told(pairs(path, encoder))
    (kept,) = store.iterdir()
    whole = kept.read_bytes()
    damaged = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 37)]
    for content in (b"", whole[:100], whole[:-1], whole[:-300], *damaged):
        kept.write_bytes(content)
        assert told(pairs(path, encoder)) == expected
    assert list(store.iterdir()) == [kept]


def test_a_set_that_is_refused_leaves_nothing(tmp_path: Path, encoder: Encoder, store: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    path.write_text(path.read_text() + "not JSON\n")
    with pytest.raises(UserError, match="malformed"):
        pairs(path, encoder)
    assert list(store.iterdir()) == []


def test_a_file_that_changes_while_it_is_read_is_refused_and_not_kept(
    path: Path, encoder: Encoder, store: Path
) -> None:
    loaded = read_pairs(path)
    path.write_text(path.read_text() + json.dumps(ROWS[0]) + "\n")
    with pytest.raises(UserError, match="changed while it was read"):
        encode_pairs(loaded, encoder, BOUNDS)
    assert list(store.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_done_without_and_that_is_said(
    tmp_path: Path, path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pairs(path, encoder)
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    data = pairs(path, encoder)
    assert (list(data.trees), data.digest) == (list(expected.trees), expected.digest)
    assert "not cached" in data.note and "TRUEUP_CACHE" in data.describe()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_full_disk_is_the_users_to_clear(store: Path) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"No space left.*TRUEUP_CACHE"):
        cache.kept_or_made({"a": 1}, write)
    assert list(store.iterdir()) == []


def test_writers_at_one_time_all_get_the_whole_set_and_one_file_remains(store: Path) -> None:
    trees, together = [Tree((number,), ()) for number in range(2000)], Barrier(4)

    def write(path: Path) -> None:
        writer = TreeWriter(path)
        together.wait(timeout=20)
        for tree in trees:
            writer.add(1, tree)
        writer.close({})

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cache.kept_or_made({"a": 1}, write), range(4)))
    assert all(list(mapped) == trees and note == "" for mapped, note in found)
    assert len(list(store.iterdir())) == 1


def test_what_a_killed_process_left_goes_after_a_day(store: Path) -> None:
    def write(path: Path) -> None:
        TreeWriter(path).close({})

    for name, age in (("partial-old", 90_000), ("partial-new", 3600)):
        folder = store / name
        folder.mkdir(parents=True)
        (folder / "trees.arrow").write_bytes(b"part")
        then = folder.stat().st_mtime - age
        os.utime(folder, (then, then))
    cache.kept_or_made({"a": 1}, write)
    assert [path.name for path in store.glob("partial-*")] == ["partial-new"]


def test_a_set_that_is_no_files_is_encoded_and_not_kept(encoder: Encoder, store: Path, path: Path) -> None:
    loaded = replace(read_examples(write(path, [{"prompt": "cat", "response": "mat"}])), identity="")
    data = encode_examples(loaded, encoder, BOUNDS)
    assert len(data) == 1 and data.note == "" and not store.exists()
