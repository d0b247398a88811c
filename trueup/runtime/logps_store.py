"""Log-probabilities on disk: what a frozen model says of a data set, computed once and mapped into memory.

A store is a folder that can be copied to another machine: ``about.json`` says what its key is made of, ``logps.f32``
has one little-endian float32 for every response token of the data set, in its order, and ``done.u8`` one byte for
every row: 1 where the row's values are there. Nothing in it depends on a loss, a learning rate or a seed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from trueup.errors import UserError

FORMAT = 1


class LogpsStore:
    """A positional store of per-token log-probabilities; a row is read only after it was written whole."""

    def __init__(
        self, parent: Path, parts: Mapping[str, str], offsets: np.ndarray, setting: str = "preference.store"
    ) -> None:
        """Open the store of that key, or create an empty one.

        Args:
            parent: folder of stores; the store's own folder is named by its key.
            parts: what the values depend on, by name: fingerprints of weights and of token ids, the dtype policy.
            offsets: i64 ``[rows + 1]``, for each row the number of response tokens before it.
            setting: where the user names ``parent``; only the refusal mentions it.

        Raises:
            UserError: the folder cannot be written, or its files are not those of this data set.
        """
        self.parts = {"format": str(FORMAT), **parts}
        self.key = hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()
        self.folder = parent / self.key[:32]
        self.offsets = offsets
        try:
            self._create()
            self._logps = np.memmap(self.folder / "logps.f32", np.dtype("<f4"), "r+", shape=(int(offsets[-1]),))
            self._done = np.memmap(self.folder / "done.u8", np.uint8, "r+", shape=(len(offsets) - 1,))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.folder}: the store of reference log-probabilities cannot be used ({error}); "
                f"remove the folder, or give another --{setting}"
            ) from None

    def _create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "about.json"
        # Sized before it is described: a store with about.json has all its files. Holes in a file cost no disk.
        for name, size in (("logps.f32", 4 * int(self.offsets[-1])), ("done.u8", len(self.offsets) - 1)):
            path = self.folder / name
            if not path.exists():
                with open(path, "ab") as file:
                    file.truncate(size)
            elif path.stat().st_size != size:
                raise ValueError(f"{name} has {path.stat().st_size} bytes, not {size}")
        if not about.exists():
            aside = self.folder / f"about.{os.getpid()}.partial"
            aside.write_text(json.dumps(self.parts, indent=1), encoding="utf-8")
            aside.replace(about)

    def missing(self, rows: Sequence[int]) -> list[int]:
        """Those of the rows that have no values yet, in the order given."""
        found = self._done[np.asarray(rows, np.int64)]
        return [row for row, done in zip(rows, found, strict=True) if not done]

    def write(self, rows: Sequence[int], values: np.ndarray) -> None:
        """Keep the values of rows, one after the other in ``values``. They are on disk before they count as there."""
        start = 0
        for row in rows:
            first, last = self.offsets[row], self.offsets[row + 1]
            self._logps[first:last] = values[start : start + last - first]
            start += last - first
        self._logps.flush()
        self._done[np.asarray(rows, np.int64)] = 1
        self._done.flush()

    def read(self, rows: Sequence[int]) -> np.ndarray:
        """Float32, the values of rows one after the other; every row must be there."""
        if absent := self.missing(rows):
            raise KeyError(f"row {absent[0]} has no values yet")
        parts = [self._logps[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
