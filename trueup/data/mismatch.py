"""Prompts with the responses of other rows: what KTO measures the distance between policy and reference on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trueup.data.cache import kept_or_made
from trueup.data.encode import Bounds, EncodedSet
from trueup.data.store import TreeWriter
from trueup.data.trees import Tree
from trueup.errors import UserError

FORMAT = 1
"""To be raised when the same set would be given other partners than before."""


def mismatched(data: EncodedSet, bounds: Bounds) -> EncodedSet:
    """Return, row for row, the prompts of ``data`` with a response to another prompt.

    Row i gets the response of the next row, around the end, whose prompt is another one and whose response fits
    behind row i's prompt. A row's partner is a function of the data alone, so what the reference says of it can be
    kept, whatever the order of training.

    Args:
        data: trees of one response.
        bounds: the length limits that ``data`` was made with.

    Raises:
        UserError: there is no other prompt, or nothing fits behind one of the prompts.
    """
    key = {"mismatched": FORMAT, "trees": data.digest, "limit": bounds.limit}

    def write(path: Path) -> None:
        writer = TreeWriter(path)
        for row, number in enumerate(data.row_numbers.tolist()):
            writer.add(number, Tree(data.trees[row].prompt, data.trees[_partner(data, row, bounds.limit)].responses))
        writer.close({})

    trees, note = kept_or_made(key, write)
    return replace(data, trees=trees, note=note)


def _partner(data: EncodedSet, row: int, limit: int) -> int:
    trees, prompt = data.trees, data.trees[row].prompt
    room = limit - len(prompt)
    others = False
    for other in (*range(row + 1, len(data)), *range(row)):
        if trees.prompt_lengths[other] == len(prompt) and trees[other].prompt == prompt:
            continue
        others = True
        if trees.response_lengths[other] <= room:
            return other
    problem = "no response to another prompt fits behind it" if others else "all rows have the same prompt"
    raise UserError(
        f"{data.path}: row {data.row_numbers[row]}: {problem}, and the loss kto compares prompts with responses to "
        "others; lower data.max_length, or use --kto.loss bco"
    )
