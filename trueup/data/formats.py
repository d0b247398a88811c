"""From a file to rows: one decoder a format, and errors that name file and line.

Text formats are UTF-8 (a byte-order mark is allowed) and may be gzipped. A blank line is no row. JSON Lines, CSV, TSV,
text, Parquet and Arrow are streamed; a JSON array is held as a whole.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from trueup.data import columnar
from trueup.data.rows import Flaw, Row, make_row
from trueup.errors import UserError

Decoder = Callable[[Path], Iterator[tuple[str, Any]]]
"""File -> (place, row) pairs; rows are not checked yet."""


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of the file's bytes as they lie on disk, after checking that there is a file with content."""
    try:
        if not path.exists():
            raise UserError(f"{path}: no such file; check the path")
        if not path.is_file():
            raise UserError(f"{path}: is {'a folder' if path.is_dir() else 'not a regular file'}; name a file of data")
        if not path.stat().st_size:
            raise UserError(f"{path}: the file is empty; write at least one row")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be opened ({error}); check the path and its permissions") from None


def stamp(path: Path) -> tuple[int, int] | None:
    """Return size and time of change, None without a file: another stamp later means another content."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def kind_of(path: Path) -> str:
    """Return the known ending of the file's name, which tells how it is decoded.

    Raises:
        UserError: the ending is not known.
    """
    name = path.name.lower()
    for ending in DECODERS:
        if name.endswith(ending) or (ending in COMPRESSIBLE and name.endswith(f"{ending}.gz")):
            return ending
    raise UserError(f"{path}: unknown kind of file; known endings are {' '.join(DECODERS)}, text formats also with .gz")


def read_rows(path: Path) -> Generator[Row]:
    """Yield the file's rows, checked, in order.

    Raises:
        UserError: unknown ending, broken compression, not UTF-8, malformed JSON or CSV, a row that is not an object.
    """
    decoder = DECODERS[kind_of(path)]
    try:
        for number, (where, value) in enumerate(decoder(path), 1):
            yield make_row(value, where, number)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read to its end ({error}); fetch or write the file again") from None


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _text(raw: bytes, path: Path, first_line: int) -> str:
    try:
        return raw.decode("utf-8-sig" if first_line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line = first_line + error.object.count(b"\n", 0, error.start)
        byte = error.object[error.start]
        raise UserError(f"{path}:{line}: not UTF-8 (byte 0x{byte:02x}); save the file with UTF-8 encoding") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line with its end). Only a line feed ends a line: U+2028 and its like are text."""
    with _open(path) as file:
        for number, raw in enumerate(file, 1):
            yield number, _text(raw, path, number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Flaw:
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    return Flaw(f"the key {_most_frequent(name for name, _ in pairs)!r} occurs twice in one object")


def _most_frequent(names: Iterable[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def _parse(content: str, place: Callable[[int], str], remedy: str) -> Any:
    """Parse strict JSON; ``place`` turns a line of ``content`` into words."""
    try:
        return json.loads(content, object_pairs_hook=_object, parse_constant=lambda c: Flaw(f"{c} is not JSON"))
    except json.JSONDecodeError as error:
        problem = f"{place(error.lineno)}: malformed JSON at column {error.colno} ({error.msg})"
    except RecursionError:
        problem = f"{place(1)}: JSON that is nested too deeply to be data"
    except ValueError as error:  # a number of more digits than Python converts
        problem = f"{place(1)}: malformed JSON ({error})"
    raise UserError(f"{problem}; {remedy}")


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if line.strip(" \t\r\n"):
            yield where, _parse(line.rstrip("\r\n"), lambda _, where=where: where, "each line must be one JSON object")


def _json_array(path: Path) -> Iterator[tuple[str, Any]]:
    with _open(path) as file:
        content = _text(file.read(), path, 1)
    remedy = "a .json file is one array of objects; if yours has one object a line, name it .jsonl"
    rows = _parse(content, lambda line: f"{path}:{line}", remedy)
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds a single JSON value, not an array; {remedy}")
    for index, row in enumerate(rows):
        yield f"{path}[{index}]", row


def _boolean(cell: str) -> Any:
    return {"true": True, "false": False}.get(cell.lower(), cell)


def _float(cell: str) -> Any:
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell


# CSV has no types. Where a shape wants one, the text is converted here or left as text, which the shape then refuses.
_TYPED = {"label": _boolean, "margin": _float} | dict.fromkeys(
    ("score_chosen", "score_rejected", "chosen_score", "rejected_score"), _float
)


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells) of each row; a quoted cell may span lines."""
    csv.field_size_limit(2**31 - 1)  # the default refuses cells above 128 KiB; it can only be set for the process
    reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            remedy = 'put cells that hold quotes or line ends in "...", with inner quotes doubled'
            raise UserError(f"{path}:{line}: malformed row ({error}); {remedy}") from None
        if cells is None:
            return
        if cells:
            yield line, cells


def _delimited(path: Path, delimiter: str) -> Iterator[tuple[str, Any]]:
    rows = _csv_rows(path, delimiter)
    line, header = next(rows, (1, []))
    _no_repeats(f"{path}:{line}", header)
    for line, cells in rows:
        if len(cells) != len(header):
            problem = f"{len(cells)} cells under a header of {len(header)} columns"
            raise UserError(f'{path}:{line}: {problem}; correct the row, or put cells that hold a separator in "..."')
        yield f"{path}:{line}", {name: _TYPED.get(name, str)(cell) for name, cell in zip(header, cells, strict=True)}


def _no_repeats(where: str, header: list[str]) -> None:
    if len(set(header)) < len(header):
        raise UserError(f"{where}: the column {_most_frequent(header)!r} occurs twice; rename or remove one of them")


def _prompt_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in _lines(path):
        prompt = line.removesuffix("\n").removesuffix("\r")
        if prompt.strip():
            yield f"{path}:{number}", {"prompt": prompt}


DECODERS: dict[str, Decoder] = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".csv": partial(_delimited, delimiter=","),
    ".tsv": partial(_delimited, delimiter="\t"),
    ".txt": _prompt_lines,
    ".parquet": columnar.parquet_rows,
    ".arrow": columnar.arrow_rows,
    ".feather": columnar.arrow_rows,
}
COMPRESSIBLE = (".jsonl", ".json", ".csv", ".tsv", ".txt")
