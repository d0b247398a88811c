"""Collation: prompts and their responses become token trees, packed into rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

import numpy as np
import torch

from trueup.ops.logprobs import predicting_positions
from trueup.types import TokenTrees

Layout = Literal["flat", "shared", "plain"]
"""How trees lie in rows.

flat: all in one row without padding; attention goes tree by tree (or by a sparse block mask).
shared: in as few rows as fit, none longer than the longest tree, under a mask.
plain: one response a row, its prompt repeated; nothing is shared. For models whose mixing is not masked attention.
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """One prompt with its responses, as token ids. Each response ends in its terminator unless it was cut off."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Tokens of the shared layout: the prompt once and every response."""
        return len(self.prompt) + sum(map(len, self.responses))

    @property
    def plain_size(self) -> int:
        """Tokens of the plain layout: the prompt again for every response."""
        return sum(len(self.prompt) + len(response) for response in self.responses)


def split_branches(tree: Tree) -> list[Tree]:
    """The plain layout of a tree: one tree for each response, each with its own copy of the prompt."""
    return [Tree(tree.prompt, (response,)) for response in tree.responses]


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens after which two responses differ for the first time."""
    return sum(takewhile(bool, (a == b for a, b in zip(one, other, strict=False))))


def pack(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Assign items to rows of at most ``capacity`` tokens, first-fit on decreasing size; every row keeps item order."""
    rows: list[tuple[int, list[int]]] = []
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        for number, (used, members) in enumerate(rows):
            if used + sizes[item] <= capacity:
                members.append(item)
                rows[number] = (used + sizes[item], members)
                break
        else:
            rows.append((sizes[item], [item]))
    return [sorted(members) for _, members in rows]


def collate(trees: Sequence[Tree], layout: Layout = "shared", packing: bool = True) -> TokenTrees:
    """Lay trees out in rows: one for all (flat), or rows no longer than the longest tree.

    Branches are numbered tree by tree in the order given, in either layout and whatever the packing, so results of
    the two layouts can be compared entry by entry.

    Args:
        trees: at least one tree; every prompt has at least one token.
        layout: ``flat`` and ``shared`` store a prompt once; ``plain`` repeats it for every response.
        packing: let several trees share a row where they fit; otherwise one a row. A flat row always takes all.
    """
    units = [(tree, index) for index, tree in enumerate(trees)]
    if layout == "plain":
        units = [(part, index) for tree, index in units for part in split_branches(tree)]
    sizes = [unit.size for unit, _ in units]
    length = sum(sizes) if layout == "flat" else max(sizes)
    rows = pack(sizes, length) if packing or layout == "flat" else [[i] for i in range(len(units))]
    first_branch = np.concatenate([[0], np.cumsum([len(unit.responses) for unit, _ in units])])
    sheet = _Sheet(len(rows), length, int(first_branch[-1]))
    for row, members in enumerate(rows):
        column = 0
        for number in members:
            unit, tree_index = units[number]
            column = sheet.place(unit, row, column, int(first_branch[number]), tree_index)
    return sheet.bundle()


class _Sheet:
    """The arrays of a batch while trees are written into them."""

    def __init__(self, rows: int, length: int, branches: int) -> None:
        self.length = length
        self.tokens = np.zeros((rows, length), np.int64)
        self.positions = np.zeros((rows, length), np.int64)
        self.segment = np.full((rows, length), -1, np.int64)
        self.prompt_of: list[int] = []
        self.index: list[tuple[np.ndarray, tuple[int, ...]] | None] = [None] * branches
        self.last = np.zeros(branches, np.int64)
        self.tree = np.zeros(branches, np.int64)

    def place(self, tree: Tree, row: int, column: int, branch: int, tree_index: int) -> int:
        """Write one tree at (row, column); returns the column after it."""
        prompt_segment = len(self.prompt_of)
        base, depth = row * self.length, len(tree.prompt)
        self._write(tree.prompt, row, column, 0, prompt_segment)
        prompt_last = base + column + depth - 1
        column += depth
        for offset, response in enumerate(tree.responses):
            self._write(response, row, column, depth, prompt_segment)
            first = base + column
            self.index[branch + offset] = (predicting_positions(prompt_last, first, len(response)), response)
            self.last[branch + offset] = first + len(response) - 1 if response else prompt_last
            self.tree[branch + offset] = tree_index
            column += len(response)
        return column

    def _write(self, ids: tuple[int, ...], row: int, column: int, depth: int, prompt_segment: int) -> None:
        span = slice(column, column + len(ids))
        self.tokens[row, span] = ids
        self.positions[row, span] = np.arange(depth, depth + len(ids))
        self.segment[row, span] = len(self.prompt_of)
        self.prompt_of.append(prompt_segment)

    def bundle(self) -> TokenTrees:
        """The finished batch, as tensors."""
        index = [entry for entry in self.index if entry is not None]
        counts = [len(response) for _, response in index]
        return TokenTrees(
            tokens=torch.from_numpy(self.tokens),
            positions=torch.from_numpy(self.positions),
            segment=torch.from_numpy(self.segment),
            prompt_of=torch.tensor(self.prompt_of),
            source=torch.from_numpy(np.concatenate([source for source, _ in index])),
            target=torch.tensor([token for _, response in index for token in response], dtype=torch.int64),
            branch=torch.repeat_interleave(torch.arange(len(index)), torch.tensor(counts)),
            last=torch.from_numpy(self.last),
            tree=torch.from_numpy(self.tree),
        )
