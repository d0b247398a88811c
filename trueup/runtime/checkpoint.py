"""Checkpoints: complete or absent, safetensors and JSON only.

A state is a nest of dicts and lists with tensors, numbers, strings and None at its leaves. Tensors go to one
safetensors file, named by their path; the rest, with placeholders, goes to one JSON file.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trueup.errors import UserError

_TENSOR = "__tensor__"


def save_state(folder: Path, state: Any) -> None:
    """Write ``state`` to ``folder``: aside first, synced, then renamed, so that it is complete or absent."""
    aside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _strip(state, "state", tensors)
    # Shared storage (tied weights) is written once for each name: safetensors refuses aliases.
    save_file({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, aside / "tensors.safetensors")
    (aside / "state.json").write_text(json.dumps(skeleton), encoding="utf-8")
    for file in aside.iterdir():
        _sync(file)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    _sync(folder.parent)


def load_state(folder: Path) -> Any:
    """Read what ``save_state`` wrote; tensors come back on the CPU."""
    try:
        tensors = load_file(folder / "tensors.safetensors")
        skeleton = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"{folder}: the checkpoint cannot be read ({error}); delete it to go on from an earlier one"
        ) from None
    return _fill(skeleton, tensors)


def latest(checkpoints: Path) -> Path | None:
    """The complete checkpoint with the highest step in a ``checkpoints`` folder, or None."""
    found = [p for p in checkpoints.glob("step-*") if p.name.removeprefix("step-").isdigit()]
    return max(found, key=lambda p: int(p.name.removeprefix("step-")), default=None)


def _strip(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        # Numbered: keys may hold the separator, and no tensor may take another one's name.
        name = f"{len(tensors)} {path}"
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {str(key): _strip(item, f"{path}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strip(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _fill(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        return tensors[value[_TENSOR]] if _TENSOR in value else {k: _fill(v, tensors) for k, v in value.items()}
    return [_fill(item, tensors) for item in value] if isinstance(value, list) else value


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
