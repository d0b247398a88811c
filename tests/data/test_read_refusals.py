"""What cannot be read is refused in one line that names the file, the line and what to do."""

from __future__ import annotations

import gzip
import os
from array import array
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from trueup.data.families import EXAMPLES, JUDGED, PAIRS, PROMPTS, Family
from trueup.data.read import read_examples, read_judged, read_pairs, read_prompts
from trueup.errors import UserError

GOOD = b'{"prompt": "a", "response": "b"}'


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_examples(path).whole()
    said = str(caught.value)
    assert said.startswith(str(path)) and "\n" not in said and "; " in said
    return said.removeprefix(str(path))


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.jsonl").startswith(": no such file")
    assert refusal(tmp_path).startswith(": is a folder")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "not a regular file" in refusal(tmp_path / "pipe.jsonl")


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "rows.jsonl.zip", "rows.parquet.gz", "rows.pkl"])
def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    assert ".jsonl .json .csv .tsv" in refusal(written(tmp_path, name, GOOD))


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "txt", "parquet", "arrow", "feather"])
def test_an_empty_file(tmp_path: Path, ending: str) -> None:
    assert "is empty" in refusal(written(tmp_path, f"rows.{ending}", b""))


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.jsonl", b"\n \n"), ("rows.json", b"[]"), ("rows.csv", b"prompt,response\n"), ("rows.tsv", b"\n\n")],
)
def test_a_file_without_rows(tmp_path: Path, name: str, content: bytes) -> None:
    assert "has no rows" in refusal(written(tmp_path, name, content))


def test_a_columnar_file_without_rows(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    assert "has no rows" in refusal(tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"prompt": "a", "response": "b"', "malformed JSON at column 32"),
        (b"{'prompt': 'a'}", "malformed JSON at column 2"),
        (GOOD + GOOD, "malformed JSON at column 33"),
        (b'{"prompt": "a", "response": "b\x00"}', "malformed JSON"),
        (b'{"prompt": "a", "response": ' + b"9" * 5000 + b"}", "malformed JSON"),
        (b'{"prompt": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": "a", "response": "b", "x": NaN}', "field 'x' is wrong: NaN is not JSON"),
        (b'{"prompt": "a", "response": "b", "x": [{"y": -Infinity}]}', "field 'x' is wrong: -Infinity"),
        (b'{"prompt": "a", "prompt": "a", "response": "b"}', "the key 'prompt' occurs twice"),
        (b'{"prompt": "a", "response": "b", "x": [{"y": 1, "y": 1}]}', "field 'x' is wrong: the key 'y' occurs twice"),
        (b'{"prompt": "a", "response": "b\\u0000"}', "field 'response' holds a NUL character (position 1)"),
        (b'{"prompt": "\\ud83d", "response": "b"}', "field 'prompt' holds half of a surrogate pair"),
        (b'{"prompt": "a", "response": "b", "x": [["\\udc00"]]}', "field 'x' holds half of a surrogate pair"),
        (b'{"prompt": "a", "response": "caf\xe9"}', "not UTF-8 (byte 0xe9)"),
        (b'["a", "b"]', "the row is a list, not an object"),
        (b"null", "the row is null, not an object"),
        (b"NaN", "NaN is not JSON"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: bytes, problem: str) -> None:
    said = refusal(written(tmp_path, "rows.jsonl", GOOD + b"\n\n" + line + b"\n" + GOOD + b"\n"))
    assert said.startswith(":3: ") and problem in said


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        (b'[\n{"prompt": "a",\n}]', ":3: ", "malformed JSON"),
        (b'[\n"caf\xe9"]', ":2: ", "not UTF-8"),
        (GOOD + b"\n" + GOOD, ":2: ", "name it .jsonl"),
        (GOOD, ": ", "name it .jsonl"),
        (b"[" + GOOD + b",\n 5]", "[1]: ", "the row is a number"),
        (b"[" + GOOD + b', {"prompt": "", "response": "x"}]', "[1]: ", "field 'prompt' is empty"),
        (b"[" + GOOD + b', {"x": 1, "x": 2}]', "[1]: ", "the key 'x' occurs twice"),
    ],
)
def test_a_place_in_an_array_is_named(tmp_path: Path, content: bytes, place: str, problem: str) -> None:
    said = refusal(written(tmp_path, "rows.json", content))
    assert said.startswith(place) and problem in said


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        (b"prompt,response\na,b\nc\n", ":3: ", "1 cells under a header of 2 columns"),
        (b"prompt,response\n\na,b,c\n", ":3: ", "3 cells under a header of 2 columns"),
        (b'prompt,response\n"a\nb",c\nd,"e', ":4: ", "malformed row"),
        (b'prompt,response\n"a"b,c\n', ":2: ", "malformed row"),
        (b"prompt,response,prompt\na,b,c\n", ":1: ", "the column 'prompt' occurs twice"),
        (b"prompt,response\na,caf\xe9\n", ":2: ", "not UTF-8"),
        (b"prompt,response\na,b\nc,\n", ":3: ", "field 'response' is empty"),
        (b"prompt,response\na,b\0\n", ":2: ", "field 'response' holds a NUL"),
        (b"prompt,messages\na,b\n", ":2: ", "field 'messages' must be a list, but is text"),
    ],
)
def test_a_place_in_a_csv_file_is_named(tmp_path: Path, content: bytes, place: str, problem: str) -> None:
    said = refusal(written(tmp_path, "rows.csv", content))
    assert said.startswith(place) and problem in said


def test_utf_16_is_not_guessed_at(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, "rows.csv", "prompt,response\na,b\n".encode("utf-16"))).startswith(":1: not UTF-8")


def test_broken_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(b"\n".join(GOOD.replace(b"a", str(i).encode()) for i in range(1000)))
    for content in (GOOD, packed[:-9], packed[:200], packed[:100] + b"\0\0\0" + packed[103:]):
        assert "cannot be read to its end" in refusal(written(tmp_path, "rows.jsonl.gz", content))


def test_broken_columnar_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pyarrow.parquet.write_table(pa.table({"prompt": ["a"], "response": ["b"]}), whole)
    for name, content in (
        ("rows.parquet", whole.read_bytes()[:-20]),
        ("rows.parquet", GOOD),
        ("rows.arrow", GOOD),
        ("rows.feather", b"ARROW1" + GOOD),
    ):
        assert "cannot be read" in refusal(written(tmp_path, name, content))


def test_arrow_offsets_that_point_outside_are_caught_before_they_are_followed(tmp_path: Path) -> None:
    table, sink = pa.table({"prompt": ["a", "bc", "def"]}), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    whole, offsets = sink.getvalue().to_pybytes(), array("i", [0, 1, 3, 6]).tobytes()
    assert whole.count(offsets) == 1
    for wrong in ([0, 1, -7, 6], [0, 1, 3, 2**30], [0, 5, 3, 6]):
        path = written(tmp_path, "rows.arrow", whole.replace(offsets, array("i", wrong).tobytes()))
        with pytest.raises(UserError, match="cannot be read"):
            read_prompts(path).whole()


def test_a_columnar_file_with_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.table([["a"], ["b"]], names=["prompt", "prompt"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="two columns have one name"):
        read_prompts(tmp_path / "rows.parquet").whole()


@pytest.mark.parametrize(
    ("family", "reader"),
    [(EXAMPLES, read_examples), (PAIRS, read_pairs), (JUDGED, read_judged), (PROMPTS, read_prompts)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_known_shapes_are_told_once_each(tmp_path: Path, family: Family[Any], reader: Any) -> None:
    with pytest.raises(UserError, match="columns seen: 'x', 'y' \\(null\\)") as caught:
        reader(written(tmp_path, "rows.jsonl", b'{"x": 1, "y": null}'))
    told = str(caught.value).split("; known shapes: ")[1].split("; ")
    assert set(told) <= {shape.label for shape in family.shapes}
    columns = [frozenset(shape.columns) for shape in family.shapes if shape.label in told]
    # Short: no two clauses ask for the same columns. Whole: whoever has a shape's columns finds some of them named.
    assert len(told) <= 6 and len(set(columns)) == len(told)
    assert all(any(named <= shape.columns.keys() for named in columns) for shape in family.shapes)


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (
            b'{"prompt": "a", "x": 1}',
            "is missing; columns seen: 'prompt', 'x'; give every row the shape of the first: ",
        ),
        (b'{"prompt": "a", "response": null}', "is null; columns seen: 'prompt', 'response' (null); "),
    ],
)
def test_a_later_row_without_a_value_says_which_it_is(tmp_path: Path, second: bytes, problem: str) -> None:
    said = refusal(written(tmp_path, "rows.jsonl", GOOD + b"\n" + second))
    assert said.startswith(f":2: field 'response' {problem}")
    assert said.endswith("prompt and response (prompt, response)")


def test_a_column_that_is_null_in_the_first_row_is_not_called_absent(tmp_path: Path) -> None:
    first = b'{"prompt": "a", "response": "b", "label": null}'
    said = refusal(written(tmp_path, "rows.jsonl", first + b"\n" + first.replace(b"null", b"true")))
    assert said.startswith(":2: field 'label' is in this row, but is null in the first; ")


def test_many_columns_are_counted_not_listed(tmp_path: Path) -> None:
    cells = ", ".join(f'"c{i}": {i}' for i in range(40))
    said = refusal(written(tmp_path, "rows.jsonl", f"{{{cells}}}".encode()))
    assert "'c0', 'c1', " in said and "'c11' and 28 more; " in said and "'c12'" not in said


def test_column_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, "rows.jsonl", b'{"\\u001b[31m\\nx": 1}'))
    assert "\x1b" not in said
