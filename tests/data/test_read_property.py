"""Whatever text is written is read back; whatever bytes are given, the answer is records or a `UserError`."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.data.read import read_examples, read_judged, read_pairs, read_prompts
from trueup.data.shapes import PROMPT_SHAPES
from trueup.errors import UserError

READERS = (read_examples, read_pairs, read_judged, read_prompts)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)
PAIRS = st.lists(st.tuples(TEXT, TEXT, TEXT).filter(lambda row: row[1] != row[2]), min_size=1, max_size=4)
NAMES = ("prompt", "chosen", "rejected")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("property")


def _json_lines(rows: list[dict[str, str]], path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="")


def _delimited(rows: list[dict[str, str]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


WRITERS: dict[str, Callable[[list[dict[str, str]], Path], Any]] = {
    ".jsonl": _json_lines,
    ".json": lambda rows, path: path.write_text(json.dumps(rows), encoding="utf-8"),
    ".csv": _delimited,
    ".tsv": _delimited,
    ".parquet": lambda rows, path: pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path),
}


@pytest.mark.parametrize("ending", WRITERS)
@given(pairs=PAIRS)
@settings(max_examples=60, deadline=None)
def test_reading_returns_what_was_written(folder: Path, ending: str, pairs: list[tuple[str, str, str]]) -> None:
    path = folder / f"rows{ending}"
    WRITERS[ending]([dict(zip(NAMES, row, strict=True)) for row in pairs], path)
    records = read_pairs(path).records
    assert [(record.prompt[0].content, record.chosen, record.rejected) for record in records] == pairs


@given(turns=st.lists(TEXT, min_size=1, max_size=5), reply=TEXT)
@settings(max_examples=60, deadline=None)
def test_every_turn_of_a_dialogue_is_returned_in_order(folder: Path, turns: list[str], reply: str) -> None:
    turns = turns if len(turns) % 2 else turns[:-1]
    said = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate([*turns, reply])]
    path = folder / "messages.jsonl"
    path.write_text(json.dumps({"messages": said}), encoding="utf-8")
    (record,) = read_examples(path).records
    assert [(turn.role, turn.content) for turn in record.prompt] == [(m["role"], m["content"]) for m in said[:-1]]
    assert record.response == reply


def _load_or_refuse(path: Path) -> None:
    for reader in READERS:
        with contextlib.suppress(UserError):
            reader(path).whole()


ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather", ".jsonl.gz")


@pytest.mark.parametrize("ending", ENDINGS)
@given(content=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_load_or_are_refused(folder: Path, ending: str, content: bytes) -> None:
    path = folder / f"bytes{ending}"
    path.write_bytes(content)
    _load_or_refuse(path)


_COLUMNS = st.sampled_from(
    [name for shape in PROMPT_SHAPES for name in shape.columns]
    + ["input", "margin", "score_chosen", "id", "role", "from"]
)
_SPEECH = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "x"]), "content": st.text()})
_CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(_SPEECH, max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_COLUMNS, inner, max_size=3),
    max_leaves=6,
)


@given(rows=st.lists(st.dictionaries(_COLUMNS, _CELLS, max_size=5) | _CELLS, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_json_loads_or_is_refused(folder: Path, rows: list[Any]) -> None:
    path = folder / "any.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    _load_or_refuse(path)
    path = folder / "any.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    _load_or_refuse(path)


@given(data=st.data(), ending=st.sampled_from([".jsonl", ".json", ".csv"]))
@settings(max_examples=100, deadline=None)
def test_a_damaged_file_loads_or_is_refused(folder: Path, data: st.DataObject, ending: str) -> None:
    path = folder / f"damaged{ending}"
    WRITERS[ending]([dict(zip(NAMES, "abc", strict=True)), dict(zip(NAMES, "déf", strict=True))], path)
    content = path.read_bytes()
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    path.write_bytes(content[:start] + data.draw(st.binary(max_size=4)) + content[stop:])
    _load_or_refuse(path)


def test_no_torch_is_needed_to_read() -> None:
    import subprocess
    import sys

    code = "import sys, trueup.data.read; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
