"""Where encoded data sets lie: in the user's cache, complete or absent, or in a temporary file where that fails."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from trueup.data.store import MappedTrees
from trueup.errors import UserError
from trueup.runtime.cache import cache_folder

_ABANDONED = 86400.0
"""Seconds after which an unfinished file is taken for that of a process that was killed."""


def kept_or_made(key: Mapping[str, Any] | None, write: Callable[[Path], None]) -> tuple[MappedTrees, str]:
    """Map the cached file of ``key``, or write it; returns a note for people if it could not be cached.

    The file is written aside and renamed, so any number of processes may do this at once, and a file that is found
    damaged is written again.

    Args:
        key: everything that the content is a function of; None for what need not be found again.
        write: writes a complete file at a path.
    """
    if key is None:
        return _temporary(write), ""
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    try:
        folder = cache_folder() / "encoded"
        path = folder / f"{name}.arrow"
        if (found := _found(path)) is not None:
            return found, ""
        folder.mkdir(parents=True, exist_ok=True)
        aside = tempfile.TemporaryDirectory(dir=folder, prefix="partial-", ignore_cleanup_errors=True)
    except (OSError, RuntimeError) as error:  # a RuntimeError is a user without a home
        return _temporary(write), f"not cached ({error}; set TRUEUP_CACHE to a folder that can be written)"
    with aside:
        _drop_abandoned(folder, Path(aside.name))
        partial = _written(Path(aside.name), write)
        try:
            partial.replace(path)
        except OSError as error:
            return MappedTrees(partial, check=False), f"not cached ({error})"
        return MappedTrees(path, check=False), ""


def _found(path: Path) -> MappedTrees | None:
    """The set in a cached file; None if there is none or it is damaged."""
    try:
        return MappedTrees(path)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def _temporary(write: Callable[[Path], None]) -> MappedTrees:
    """A set whose file has no name: it lasts as long as it is mapped."""
    with tempfile.TemporaryDirectory(prefix="trueup-", ignore_cleanup_errors=True) as aside:
        return MappedTrees(_written(Path(aside), write), check=False)


def _written(folder: Path, write: Callable[[Path], None]) -> Path:
    path = folder / "trees.arrow"
    try:
        write(path)
    except OSError as error:
        remedy = "make room, or set TRUEUP_CACHE (TMPDIR for temporary files) to a folder with more"
        raise UserError(f"{folder.parent}: the encoded data cannot be written ({error}); {remedy}") from None
    return path


def _drop_abandoned(folder: Path, mine: Path) -> None:
    """Remove what killed processes left; the file system's clock is the only one asked."""
    now = mine.stat().st_mtime
    for other in folder.glob("partial-*"):
        try:
            if now - other.stat().st_mtime > _ABANDONED:
                shutil.rmtree(other, ignore_errors=True)
        except FileNotFoundError:
            continue
