"""Text and metadata of the prompts, kept at hand for rewards that read them."""

from __future__ import annotations

import pickle
import tempfile
import weakref
from array import array
from collections.abc import Iterable

from trueup.data.records import Dropped, Loaded, PromptOnly

_IN_MEMORY = 2**24
"""Bytes above which the rows lie in an unnamed temporary file."""


class PromptRows:
    """The records of a data set by their place: eight bytes a row in memory, the rest on disk once it is large.

    Attributes:
        columns: names of the metadata columns that at least one row has.
        several_turns: some prompt has more than one turn.
    """

    def __init__(self, loaded: Loaded[PromptOnly], row_numbers: Iterable[int]) -> None:
        """Read the file once.

        Args:
            loaded: the prompts.
            row_numbers: numbers of the rows that are kept, ascending (`EncodedSet.row_numbers`).
        """
        # Written and read by this process alone: the file has no name that another could open.
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._starts = array("q", [0])
        self.several_turns = False
        columns: set[str] = set()
        wanted = set(map(int, row_numbers))
        for number, record in enumerate(loaded.rows, 1):
            if number in wanted and not isinstance(record, Dropped):
                self._file.write(pickle.dumps(record))
                self._starts.append(self._file.tell())
                columns.update(record.meta)
                self.several_turns |= len(record.prompt) > 1
        self.columns = frozenset(columns)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, place: int) -> PromptOnly:
        start, stop = self._starts[place], self._starts[place + 1]
        self._file.seek(start)
        return pickle.loads(self._file.read(stop - start))
