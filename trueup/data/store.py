"""Token trees on disk: an Arrow file, written block by block and then mapped, so that memory does not grow with it.

Columns: ``row`` (the row's number in the data file), ``prompt`` (token ids), ``responses`` (a list of token ids each).
What is known only at the end (counts, the digest) is the metadata of a last block without rows.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from trueup.data.trees import Tree

BLOCK = 1024
"""Trees of every block but the last."""

_IDS = pa.list_(pa.int32())
_SCHEMA = pa.schema([("row", pa.int64()), ("prompt", _IDS), ("responses", pa.list_(_IDS))])
_FACTS = b"trueup"


@dataclass(frozen=True, slots=True)
class _Block:
    """A block's columns as flat arrays, views of the map: list i is ``ids[at[i] : at[i + 1]]``.

    Attributes:
        row: i64 ``[n]``.
        prompt, prompt_at: ids of all prompts; ``[n + 1]`` where each begins.
        response, response_at: ids of all k responses; ``[k + 1]`` where each begins.
        first: ``[n + 1]``, the first response of each tree.
    """

    row: np.ndarray
    prompt: np.ndarray
    prompt_at: np.ndarray
    response: np.ndarray
    response_at: np.ndarray
    first: np.ndarray

    def prompt_keys(self) -> np.ndarray:
        """u64 ``[n]``, a hash of each prompt."""
        return _keys(self.prompt, self.prompt_at)

    def keys(self) -> np.ndarray:
        """u64 ``[n]``, a hash of each tree."""
        return _mixed(self.prompt_keys()) + _keys(_keys(self.response, self.response_at), self.first)

    def tree(self, index: int) -> Tree:
        start, stop = self.prompt_at[index : index + 2].tolist()
        first, last = self.first[index : index + 2].tolist()
        spans = pairwise(self.response_at[first : last + 1].tolist())
        responses = tuple(tuple(self.response[a:b].tolist()) for a, b in spans)
        return Tree(tuple(self.prompt[start:stop].tolist()), responses)


_ODD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: multiples of it are spread over all 64 bits."""


def _mixed(values: np.ndarray) -> np.ndarray:
    """Finaliser of splitmix64 (Steele et al. 2014): numbers that differ a little come out unrelated; u64 as given."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _keys(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """u64 ``[n]``, a hash of each list ``values[at[i] : at[i + 1]]``: the sum of its values' hashes, each by its place.

    Equal lists have equal hashes; of a million different ones, two have the same with a probability of 3e-8.
    """
    at = at.astype(np.int64)
    places = np.arange(at[0], at[-1]) - np.repeat(at[:-1], np.diff(at))
    mixed = _mixed(values[at[0] : at[-1]].astype(np.uint64) + _ODD * (places.astype(np.uint64) + np.uint64(1)))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(mixed), dtype=np.uint64)])
    return sums[at[1:] - at[0]] - sums[at[:-1] - at[0]] + np.diff(at).astype(np.uint64)


def _block(batch: pa.RecordBatch) -> _Block:
    prompts, responses = batch.column("prompt"), batch.column("responses")
    return _Block(
        row=batch.column("row").to_numpy(),
        prompt=prompts.values.to_numpy(),
        prompt_at=prompts.offsets.to_numpy(),
        response=responses.values.values.to_numpy(),
        response_at=responses.values.offsets.to_numpy(),
        first=responses.offsets.to_numpy(),
    )


class _Digest:
    """sha256 over token ids and structure, the same however the trees are cut into blocks; and over all the rest."""

    def __init__(self) -> None:
        self._parts = [hashlib.sha256() for _ in range(5)]
        self._rows = hashlib.sha256()

    def add(self, block: _Block) -> None:
        self._rows.update(np.ascontiguousarray(block.row, "<i8").data)
        lengths = (np.diff(at) for at in (block.prompt_at, block.first, block.response_at))
        for part, values in zip(self._parts, (*lengths, block.prompt, block.response), strict=True):
            part.update(np.ascontiguousarray(values, "<i4").data)

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(part.digest() for part in self._parts)).hexdigest()

    def about(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Facts and digest, and a seal over both and the row numbers, by which damage is found."""
        seal = hashlib.sha256(f"{json.dumps(facts)} {self.hexdigest()} {self._rows.hexdigest()}".encode()).hexdigest()
        return {"facts": facts, "digest": self.hexdigest(), "seal": seal}


class _Pending:
    """Trees of the next block, held as the flat arrays that they are written as."""

    def __init__(self) -> None:
        self.row = array("q")
        self.prompt, self.response = array("i"), array("i")
        self.prompt_at, self.response_at, self.first = (array("i", [0]) for _ in range(3))

    def add(self, number: int, tree: Tree) -> None:
        self.row.append(number)
        self.prompt.extend(tree.prompt)
        self.prompt_at.append(len(self.prompt))
        for response in tree.responses:
            self.response.extend(response)
            self.response_at.append(len(self.response))
        self.first.append(len(self.response_at) - 1)

    def batch(self) -> pa.RecordBatch:
        prompts = _lists(self.prompt_at, pa.array(np.asarray(self.prompt)))
        responses = _lists(self.first, _lists(self.response_at, pa.array(np.asarray(self.response))))
        return pa.record_batch([pa.array(np.asarray(self.row)), prompts, responses], schema=_SCHEMA)


def _lists(at: array[int], values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.asarray(at)), values)


class TreeWriter:
    """Writes trees to a file, and takes their digest on the way.

    Args:
        path: the file, which is complete only after ``close``.
    """

    def __init__(self, path: Path) -> None:
        self._file = pa.ipc.new_file(str(path), _SCHEMA)
        self._pending = _Pending()
        self._digest = _Digest()

    def add(self, number: int, tree: Tree) -> None:
        """Append a tree that was made from the data file's row of this number."""
        self._pending.add(number, tree)
        if len(self._pending.row) == BLOCK:
            self._flush()

    def close(self, facts: Mapping[str, Any]) -> None:
        """Write what is left, with ``facts`` (as JSON) and the digest."""
        if self._pending.row:
            self._flush()
        told = json.dumps(self._digest.about(facts))
        self._file.write_batch(self._pending.batch(), custom_metadata={_FACTS: told.encode()})
        self._file.close()

    def _flush(self) -> None:
        batch, self._pending = self._pending.batch(), _Pending()
        self._digest.add(_block(batch))
        self._file.write_batch(batch)


class MappedTrees(Sequence[Tree]):
    """A sequence of trees that lie in a mapped file; a `Tree` is made when it is asked for.

    Arrays about all trees (``sizes`` and its like) are made from lengths alone and take a few bytes a tree.

    Attributes:
        facts: what the writer was told at the end.
        digest: sha256 over token ids and structure: two sets with one digest train alike.
    """

    def __init__(self, path: Path, check: bool = True) -> None:
        """Map a file that `TreeWriter` has closed.

        Args:
            path: the file; it may be renamed or unlinked afterwards.
            check: see that the content is what was written, and trust no offset before that.

        Raises:
            OSError, ValueError: it is missing, damaged, or another kind of file.
        """
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.schema != _SCHEMA:
            raise ValueError(f"{path}: holds other columns than token trees")
        *batches, (_, told) = (reader.get_batch_with_custom_metadata(i) for i in range(reader.num_record_batches))
        about = json.loads(told[_FACTS])
        self.facts: Mapping[str, Any] = about["facts"]
        self.digest: str = about["digest"]
        if check:
            for batch, _ in batches:
                batch.validate(full=True)
        self._blocks = [_block(batch) for batch, _ in batches]
        lengths = [len(block.row) for block in self._blocks]
        self._length, self._block = sum(lengths), lengths[0] if lengths else 1
        if any(length != self._block for length in lengths[:-1]):
            raise ValueError(f"{path}: has blocks of unequal lengths")
        if check and self._about() != about:
            raise ValueError(f"{path}: the content is not what was written")

    def _about(self) -> dict[str, Any]:
        digest = _Digest()
        for block in self._blocks:
            digest.add(block)
        return digest.about(self.facts)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Tree: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tree, ...]: ...
    def __getitem__(self, index: int | slice) -> Tree | tuple[Tree, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        return self._blocks[place // self._block].tree(place % self._block)

    @cached_property
    def row_numbers(self) -> np.ndarray:
        """i64 ``[n]``: for each tree, the number of its row in the data file, from 1."""
        return self._joined(lambda block: block.row, np.int64)

    @cached_property
    def prompt_lengths(self) -> np.ndarray:
        """i32 ``[n]``: tokens of each tree's prompt."""
        return self._joined(lambda block: np.diff(block.prompt_at), np.int32)

    @cached_property
    def response_lengths(self) -> np.ndarray:
        """i32 ``[k]``: tokens of each response, in the order of the trees."""
        return self._joined(lambda block: np.diff(block.response_at), np.int32)

    @cached_property
    def responses_before(self) -> np.ndarray:
        """i64 ``[n + 1]``: number of responses of all trees before each."""
        return _before(self._joined(lambda block: np.diff(block.first), np.int32))

    @cached_property
    def response_offsets(self) -> np.ndarray:
        """i64 ``[n + 1]``: number of response tokens of all trees before each."""
        return _before(self._joined(lambda block: np.diff(block.response_at[block.first]), np.int32))

    @cached_property
    def sizes(self) -> np.ndarray:
        """i32 ``[n]``: tokens of each tree in the shared layout, as `Tree.size`."""
        return self._joined(
            lambda block: np.diff(block.prompt_at) + np.diff(block.response_at[block.first]),
            np.int32,
        )

    @cached_property
    def prompt_keys(self) -> np.ndarray:
        """u64 ``[n]``, a hash of each tree's prompt: the same where the token ids are."""
        return self._joined(_Block.prompt_keys, np.uint64)

    @cached_property
    def keys(self) -> np.ndarray:
        """u64 ``[n]``, a hash of each tree, prompt and responses in their order."""
        return self._joined(_Block.keys, np.uint64)

    def response_tokens_before(self, index: int) -> int:
        """Response tokens of the trees before this one: where its own begin in a flat store of per-token values."""
        return int(self.response_offsets[index])

    def _joined(self, part: Callable[[_Block], np.ndarray], dtype: type) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype), *(part(block).astype(dtype, copy=False) for block in self._blocks)])


def _before(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def sizes_of(trees: Sequence[Tree]) -> np.ndarray:
    """Integers ``[n]``: `Tree.size` of each, without making the trees of a mapped set."""
    if isinstance(trees, MappedTrees):
        return trees.sizes
    return np.array([tree.size for tree in trees], np.int64)


def plain_sizes_of(trees: Sequence[Tree]) -> np.ndarray:
    """Integers ``[n]``: `Tree.plain_size` of each."""
    if isinstance(trees, MappedTrees):
        return trees.prompt_lengths * np.diff(trees.responses_before) + np.diff(trees.response_offsets)
    return np.array([tree.plain_size for tree in trees], np.int64)


def response_lengths_of(trees: Sequence[Tree]) -> np.ndarray:
    """Integers ``[k]``: tokens of each response, in the order of the trees."""
    if isinstance(trees, MappedTrees):
        return trees.response_lengths
    return np.array([len(response) for tree in trees for response in tree.responses], np.int64)


def responses_before(trees: Sequence[Tree]) -> np.ndarray:
    """Integers ``[n + 1]``: number of responses of all trees before each."""
    if isinstance(trees, MappedTrees):
        return trees.responses_before
    return _before(np.array([len(tree.responses) for tree in trees], np.int64))


def response_tokens_before(trees: Sequence[Tree]) -> np.ndarray:
    """Integers ``[n + 1]``: number of response tokens of all trees before each."""
    if isinstance(trees, MappedTrees):
        return trees.response_offsets
    return _before(np.array([sum(map(len, tree.responses)) for tree in trees], np.int64))
