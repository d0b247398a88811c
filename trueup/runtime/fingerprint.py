"""Fingerprints of weights and files: what a run used, and proof that frozen things stayed frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def of_weights(model: nn.Module) -> str:
    """sha256 over the names, dtypes, shapes and bytes of all parameters and persistent buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data if tensor.ndim else b"")
        if not tensor.ndim:
            digest.update(repr(tensor.item()).encode())
    return digest.hexdigest()


def of_file(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a number -> integers of that size."""


def checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Name -> the sum, modulo 2^64, of a tensor's numbers read as integers.

    Made where the tensor lies and at the speed of its memory, so that it costs little at every checkpoint; rounding,
    another tensor or one that was never restored show in it, an exchange of two numbers does not.
    """
    return {name: _checksum(tensor) for name, tensor in tensors.items()}


@torch.no_grad()
def _checksum(tensor: Tensor) -> int:
    flat = tensor.detach().contiguous().reshape(-1)
    return int(flat.view(_WORDS[flat.element_size()]).sum(dtype=torch.int64))


def of_text(text: str) -> str:
    """sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
