"""Keys and values of the responses in flight, in buffers that are written in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ROOM = 64
"""Columns that a buffer has beyond the prompts at first; one that is full grows by half."""

PLAIN = frozenset({"DynamicLayer", "DynamicSlidingWindowLayer"})
"""transformers' layers that hold keys and values and nothing else."""


@dataclass
class _Layer:
    """The buffers of one layer ``[rows, heads, room, width]``, filled up to column ``length``."""

    keys: Tensor
    values: Tensor
    length: int

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        rows, end = key.shape[0], self.length + key.shape[2]
        if end > self.keys.shape[2]:
            self.keys, self.values = (_wider(b[:rows, :, : self.length], end) for b in (self.keys, self.values))
        self.keys[:rows, :, self.length : end] = key
        self.values[:rows, :, self.length : end] = value
        self.length = end
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def filled(self) -> Iterator[Tensor]:
        """The part of each buffer that holds something."""
        yield self.keys[:, :, : self.length]
        yield self.values[:, :, : self.length]


@dataclass
class KeyValues:
    """Stands in for transformers' ``Cache``: it has what a decoder-only model and its mask ask of one, and no more.

    A step writes one column where ``DynamicCache`` copies everything that it holds. A layer with a sliding window
    keeps all columns: its mask hides those behind the window.
    """

    layers: list[_Layer]

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append ``[rows, heads, new, width]`` to a layer and return all that it holds of these rows, as views."""
        return self.layers[layer_idx].append(key, value)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns held."""
        return self.layers[layer_idx].length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """The column that the next token will have."""
        return self.get_seq_length(layer_idx)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many columns the next ``update`` will return, and the number of the first."""
        return self.get_seq_length(layer_idx) + query_length, 0

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order; only rows whose place changes are copied."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero().squeeze(1)
        if len(moved):
            for held in (part for layer in self.layers for part in layer.filled()):
                held[moved] = held[indices[moved]]


def merged(caches: Sequence[Any], owners: Sequence[Tensor]) -> KeyValues | None:
    """Put the caches of several prefills into one, or return None if one of them holds more than keys and values.

    Args:
        caches: what transformers models returned for prompts padded on the left; they may differ in length, and end
            in the same column from now on.
        owners: for each cache i64 ``[rows]``, the prompt of that cache which each row continues.
    """
    layers = [getattr(cache, "layers", None) for cache in caches]
    if not all(held and all(_is_plain(layer) for layer in held) for held in layers):
        return None
    return KeyValues([_joined(same, owners) for same in zip(*layers, strict=True)])


def _is_plain(layer: Any) -> bool:
    return type(layer).__name__ in PLAIN and layer.is_initialized


def _joined(layers: Sequence[Any], owners: Sequence[Tensor]) -> _Layer:
    length = max(layer.get_seq_length() for layer in layers)
    keys = _stacked([layer.keys for layer in layers], owners, length)
    return _Layer(keys, _stacked([layer.values for layer in layers], owners, length), length)


def _stacked(parts: Sequence[Tensor], owners: Sequence[Tensor], length: int) -> Tensor:
    """One buffer for all rows; a sliding layer hands over its last columns only, and a mask hides what was before."""
    _, heads, _, width = parts[0].shape
    buffer = parts[0].new_empty(sum(map(len, owners)), heads, length + ROOM, width)
    # What a mask hides is multiplied by 0 all the same, and that is 0 only for what is finite.
    buffer[:, :, :length] = 0
    for part, owner, rows in zip(parts, owners, buffer.split([len(o) for o in owners]), strict=True):
        rows[:, :, length - part.shape[2] : length] = part[owner]
    return buffer


def _wider(filled: Tensor, least: int) -> Tensor:
    rows, heads, length, width = filled.shape
    buffer = filled.new_empty(rows, heads, max(least, length + max(ROOM, length // 2)), width)
    buffer[:, :, :length] = filled
    return buffer
