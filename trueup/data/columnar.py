"""Rows of Parquet and Arrow files, batch by batch, so that memory does not grow with the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from trueup.errors import UserError

# Rows that are Python objects at one time.
_BATCH_ROWS = 1024


def parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place, row) of a Parquet file."""
    return _rows(path, _parquet_batches)


def arrow_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place, row) of an Arrow file: IPC file (Feather 2) or IPC stream (what ``datasets`` writes)."""
    return _rows(path, _arrow_batches)


def _rows(path: Path, batches_of: Callable[[Path], Iterable[Any]]) -> Iterator[tuple[str, Any]]:
    # Imported late: pyarrow takes longer to load than a small JSONL file takes to read.
    import pyarrow as pa

    number = 0
    try:
        for batch in batches_of(path):
            names = batch.schema.names
            if len(set(names)) < len(names):
                raise UserError(f"{path}: two columns have one name in {names}; rename or remove one of them")
            batch.validate(full=True)  # Arrow trusts the offsets in a file; wrong ones read foreign memory
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                for row in batch.slice(start, _BATCH_ROWS).to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read after row {number} ({reason}); write the file again") from None


def _parquet_batches(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    # Without a buffer, a whole column of a row group (a million rows) is in memory at once.
    with pq.ParquetFile(path, buffer_size=1 << 20) as file:
        yield from file.iter_batches(batch_size=_BATCH_ROWS)


def _arrow_batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        if is_file:
            reader = pa.ipc.open_file(source)
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            yield from pa.ipc.open_stream(source)
