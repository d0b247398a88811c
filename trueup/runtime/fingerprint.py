"""Fingerprints of weights and files: what a run used, and proof that frozen things stayed frozen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn


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
