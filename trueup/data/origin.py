"""From what a user names to files: one file, a folder of shards, or a data set in the cache of ``datasets``.

A folder is what ``datasets.save_to_disk`` wrote, with or without splits, or holds shards: ``.parquet`` or ``.jsonl``
files of one kind. A split is named after a colon (``folder:test``); without one it is ``train``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from trueup.data import formats
from trueup.data.rows import Row
from trueup.errors import UserError

T = TypeVar("T")

_SPLIT_NAME = re.compile(r"\w[\w.-]*")
_WITH_SPLIT = re.compile(rf"(?P<name>.+):(?P<split>{_SPLIT_NAME.pattern})")
_ON_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SHARD = re.compile(r"(?P<split>.+)-\d+-of-\d+\b")
_SPLITS = frozenset({"train", "test", "validation", "valid", "val", "dev", "eval"})
_SHARD_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class Origin:
    """Where rows lie.

    Attributes:
        name: what the user named, with the split that is read.
        files: in the order in which they are read, all of one kind.
    """

    name: str
    files: tuple[Path, ...]

    def fingerprint(self) -> str:
        """SHA-256 of the one file, or of the names and fingerprints of several."""
        found = [formats.fingerprint(file) for file in self.files]
        if len(found) == 1:
            return found[0]
        told = "".join(f"{file.name} {digest}\n" for file, digest in zip(self.files, found, strict=True))
        return hashlib.sha256(told.encode()).hexdigest()

    def stamp(self) -> Sequence[object]:
        """Sizes and times of change: another stamp later means another content."""
        return [formats.stamp(file) for file in self.files]

    def kind(self) -> str:
        """The ending that tells how the files are decoded."""
        return formats.kind_of(self.files[0])

    def rows(self) -> Generator[Row]:
        """All rows, file after file; they are numbered from 1 through all files."""
        number = 0
        for file in self.files:
            place = self.name if str(file) == self.name else f"{self.name}/{file.name}"
            for row in formats.read_rows(file):
                number += 1
                yield replace(row, where=place + row.where.removeprefix(str(file)), number=number)


def locate(path: str | Path) -> Origin:
    """Return the files of what ``path`` names.

    Raises:
        UserError: a folder has no data that is known, or splits of other names; a data set is not in the cache.
    """
    name, split = str(path), None
    told = _WITH_SPLIT.fullmatch(name)
    if told and not Path(path).exists():
        name, split = told["name"], told["split"]
    if Path(name).is_dir():
        return _in_folder(Path(name), split)
    if _ON_HUB.fullmatch(name) and not Path(name).exists() and not name.lower().endswith((*formats.DECODERS, ".gz")):
        return _in_cache(name, split or "train")
    return Origin(str(Path(path)), (Path(path),))


def _in_folder(folder: Path, split: str | None) -> Origin:
    if (folder / "dataset_dict.json").is_file():
        names = _told(folder / "dataset_dict.json", lambda told: list(map(str, told["splits"])))
        chosen = _choose(folder, [name for name in names if _SPLIT_NAME.fullmatch(name)], split)
        return Origin(f"{folder}:{chosen}", _saved(folder / chosen))
    groups = {"": _saved(folder)} if (folder / "state.json").is_file() else _shards(folder)
    chosen = _choose(folder, list(groups), split)
    return Origin(f"{folder}:{chosen}" if chosen else str(folder), groups[chosen])


def _choose(folder: Path, names: Sequence[str], split: str | None) -> str:
    """The split to read; an only one needs no name, and may have none."""
    if split is None and len(names) == 1:
        return names[0]
    wanted = split or "train"
    if wanted in names:
        return wanted
    if any(names):
        known = ", ".join(name or "files without a split" for name in names)
        raise UserError(f"{folder}: has no split '{wanted}', only {known}; name one, as in {folder}:{max(names)}")
    remedy = f"leave ':{wanted}' away" if names else "save the data sets again"
    raise UserError(f"{folder}: has no splits; {remedy}")


def _saved(folder: Path) -> tuple[Path, ...]:
    """The files that ``datasets`` lists in the ``state.json`` of a saved data set."""
    state = folder / "state.json"
    if _told(state, lambda told: told.get("_indices_data_files") or told.get("_indices_files")):
        raise UserError(f"{folder}: was saved with an index beside the rows; call flatten_indices() and save it again")
    names = _told(state, lambda told: [str(entry["filename"]) for entry in told["_data_files"]])
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{state}: lists no files of this folder; save the data set again")
    return tuple(folder / name for name in names)


def _told(path: Path, pick: Callable[[Any], T]) -> T:
    """What ``pick`` finds in a JSON file of ``datasets``."""
    try:
        return pick(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}: {error}); save the data set again") from None


def _shards(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The data files of a folder by split: ``train-00000-of-00002.parquet`` or ``train.jsonl`` is of ``train``."""
    files = sorted(f for f in folder.iterdir() if f.name.lower().endswith(_SHARD_ENDINGS) and f.name[0] not in "._")
    if not files:
        raise UserError(
            f"{folder}: is a folder without .parquet or .jsonl files, and datasets did not save it; name a file of data"
        )
    kinds = {formats.kind_of(file) for file in files}
    if len(kinds) > 1:
        raise UserError(f"{folder}: has files of several kinds ({', '.join(sorted(kinds))}); keep one kind in a folder")
    groups: dict[str, tuple[Path, ...]] = {}
    for file in files:
        stem = file.name.split(".", maxsplit=1)[0]
        shard = _SHARD.match(file.name)
        split = shard["split"] if shard else stem if stem in _SPLITS else ""
        groups[split] = (*groups.get(split, ()), file)
    return groups


def _in_cache(name: str, split: str) -> Origin:
    """A data set that ``datasets`` has downloaded before."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(variable, "1")  # read when the package is imported: nothing here asks a network
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        problem = f"{name}: no such file, and the package 'datasets', which could know a data set of this name,"
        raise UserError(f"{problem} is not installed; check the path, or: pip install datasets") from None
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name, split=split)
    except (OSError, ValueError) as error:  # what is not cached is a ConnectionError or one of its relatives
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{name}: no such file, and no split '{split}' of a data set of this name in the cache of datasets "
            f"({reason}); check the path, or download it once with: "
            f"python -c \"import datasets; datasets.load_dataset('{name}', split='{split}')\""
        ) from None
    return Origin(f"{name}:{split}", tuple(Path(entry["filename"]) for entry in found.cache_files))
