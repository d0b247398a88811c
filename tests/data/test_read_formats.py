"""One table reads the same from every file format, with the place that a person would look at."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from trueup.data.read import read_examples, read_judged, read_pairs, read_prompts
from trueup.errors import UserError

Rows = list[dict[str, Any]]
# A cell that spans lines, one that looks like a number, separators, quotes, a BOM inside, a line separator, no ASCII.
ROWS: Rows = [
    {"prompt": 'two\nlines, "quoted"\tand\r\nreturned', "completion": "007"},
    {"prompt": "1.50", "completion": "\ufeff\u2028 \u05e9\u05dc\u05d5\u05dd 🙂"},
    {"prompt": "true", "completion": "null"},
]


def _json_lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\r\n\r\n" for row in rows).encode()


def _delimited(rows: Rows, delimiter: str) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _columnar(write: Callable[[pa.Table, pa.BufferOutputStream], Any]) -> Callable[[Rows], bytes]:
    def encode(rows: Rows) -> bytes:
        sink = pa.BufferOutputStream()
        write(pa.Table.from_pylist(rows), sink)
        return sink.getvalue().to_pybytes()

    return encode


def _stream(table: pa.Table, sink: pa.BufferOutputStream) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "rows.jsonl": _json_lines,
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "rows.csv": lambda rows: _delimited(rows, ","),
    "rows.TSV": lambda rows: _delimited(rows, "\t"),
    "rows.parquet": _columnar(lambda table, sink: pyarrow.parquet.write_table(table, sink, row_group_size=2)),
    "file.arrow": _columnar(pyarrow.feather.write_feather),
    "stream.arrow": _columnar(_stream),
    "rows.feather": _columnar(lambda table, sink: pyarrow.feather.write_feather(table, sink, compression="lz4")),
}
TEXTS = [name for name in WRITERS if not name.endswith(("parquet", "arrow", "feather"))]
PLACES = {
    "rows.jsonl": [":1", ":3", ":5"],
    "rows.json": ["[0]", "[1]", "[2]"],
    "rows.csv": [":2", ":5", ":6"],
    "rows.TSV": [":2", ":5", ":6"],
}


def _texts(loaded: Any) -> list[tuple[str, str]]:
    return [(record.prompt[0].content, record.response) for record in loaded.records]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_texts_at_the_right_places(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(WRITERS[name](ROWS))
    loaded = read_examples(path)
    assert _texts(loaded) == [tuple(row.values()) for row in ROWS]
    places = PLACES.get(name, [" row 1", " row 2", " row 3"])
    if name in ("rows.csv", "rows.TSV"):
        # The first row spans the lines 2-4: its cell holds a line feed and a carriage return with a line feed.
        assert path.read_bytes().count(b"\n") == 6
    assert [record.where for record in loaded.records] == [f"{path}{place}" for place in places]


@pytest.mark.parametrize("name", TEXTS)
def test_gzip_and_a_byte_order_mark_change_nothing_but_the_fingerprint(tmp_path: Path, name: str) -> None:
    plain, marked, packed = (tmp_path / kind / name for kind in ("plain", "marked", "packed"))
    packed = packed.with_name(f"{name}.gz")
    content = WRITERS[name](ROWS)
    for path, written in ((plain, content), (marked, b"\xef\xbb\xbf" + content), (packed, gzip.compress(content))):
        path.parent.mkdir()
        path.write_bytes(written)
    assert _texts(read_examples(plain)) == _texts(read_examples(marked)) == _texts(read_examples(packed))
    for path in (plain, marked, packed):
        assert read_examples(path).fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["rows.parquet", "stream.arrow", "rows.json"])
def test_nested_columns_and_nulls_of_columnar_files_read_as_in_json(tmp_path: Path, name: str) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "label": True},
        {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}], "label": False},
    ]
    rows[0]["note"] = None
    path = tmp_path / name
    path.write_bytes(WRITERS[name](rows))
    loaded = read_judged(path)
    assert [(record.response, record.label) for record in loaded.records] == [("b", True), ("d", False)]
    assert loaded.unused == ()


def test_csv_labels_and_scores_have_the_types_that_their_shapes_want(tmp_path: Path) -> None:
    judged, pairs = tmp_path / "judged.csv", tmp_path / "pairs.csv"
    judged.write_text("prompt,response,label\np,a,True\np,b,false\n", encoding="utf-8")
    pairs.write_text("prompt,chosen,rejected,margin\np,1,2,0.5\np,3,4,\n", encoding="utf-8")
    assert [record.label for record in read_judged(judged).records] == [True, False]
    assert [(record.chosen, record.margin) for record in read_pairs(pairs).records] == [("1", 0.5), ("3", None)]


@pytest.mark.parametrize(("column", "cell"), [("label", "yes"), ("label", ""), ("label", "1")])
def test_a_csv_label_that_is_no_boolean_is_refused(tmp_path: Path, column: str, cell: str) -> None:
    path = tmp_path / "judged.csv"
    path.write_text(f"prompt,response,{column}\np,a,{cell}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"judged\.csv:2: field 'label'"):
        read_judged(path).whole()


def test_a_text_file_has_one_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbffirst \r\n\r\n  second\nthird")
    records = read_prompts(path).records
    assert [record.prompt[0].content for record in records] == ["first ", "  second", "third"]
    assert [record.where for record in records] == [f"{path}:{line}" for line in (1, 3, 4)]


def test_cells_of_ten_megabytes_are_read(tmp_path: Path) -> None:
    long = "palabra " * 1_300_000
    for name in ("rows.jsonl", "rows.csv"):
        path = tmp_path / name
        path.write_bytes(WRITERS[name]([{"prompt": "p", "completion": long}]))
        assert read_examples(path).records[0].response == long


def test_a_limit_takes_the_first_records_and_leaves_the_rest_unread(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": "p", "chosen": c, "rejected": "x"} for c in "xabx"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not JSON\n", encoding="utf-8")
    loaded = read_pairs(path, limit=2)
    assert [pair.chosen for pair in loaded.records] == ["a", "b"]
    assert loaded.dropped == {"identical chosen and rejected": 1}
    assert loaded.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=r"pairs\.jsonl:5: malformed JSON"):
        read_pairs(path, limit=3).whole()


def test_a_limit_above_the_file_is_no_limit_and_one_below_1_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_json_lines(ROWS))
    assert read_examples(path, limit=99).records == read_examples(path).records
    with pytest.raises(UserError, match="limit of 0"):
        read_examples(path, limit=0)
