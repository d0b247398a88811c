"""The table of sources, and the one door: a path becomes logs and score tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trueup.errors import UserError
from trueup.health.readers import (
    csv_rows,
    json_rows,
    run_folder,
    score_tables,
    tensorboard,
    torchtune_log,
    trainer_state,
)
from trueup.health.readers.found import Found
from trueup.health.readers.translate import Reading, Told, translate
from trueup.health.rules_foreign.score_table import ScoreTable


@dataclass(frozen=True)
class Source:
    """A kind of log: what a report calls it, whether a path is one, and its logs."""

    title: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Sequence[Found]]


SOURCES: tuple[Source, ...] = (
    Source("a run folder of trueup", run_folder.recognises, run_folder.read),
    Source("a transformers trainer_state.json", trainer_state.recognises, trainer_state.read),
    Source("rows of JSON", json_rows.recognises, json_rows.read),
    Source("a table of metrics", csv_rows.recognises, csv_rows.read),
    Source("TensorBoard event files", tensorboard.recognises, tensorboard.read),
    Source("torchtune's log", torchtune_log.recognises, torchtune_log.read),
)
"""The first that recognises a path reads it."""


def open_path(path: Path, told: Told, ours: frozenset[str]) -> tuple[list[Reading], list[ScoreTable]]:
    """Read whatever is at a path.

    Args:
        path: file or folder.
        told: what the user says of it.
        ours: names that rules read.

    Raises:
        UserError: there is nothing there, or nothing that any reader knows.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder")
    tables = score_tables.read(path)
    if tables:
        return [], list(tables)
    source = next((source for source in SOURCES if source.recognises(path)), None)
    if source is None:
        raise UserError(f"{path}: {_nothing(path)}")
    founds = source.read(path)
    named = [f"{path} ({found.label})" if found.label else str(path) for found in founds]
    return [translate(found, name, source.title, told, ours) for found, name in zip(founds, named, strict=True)], []


def _nothing(path: Path) -> str:
    """Why nothing was read, and what in the folder could have been."""
    if path.is_dir():
        deeper = next((file.parent for name in _TELLING for file in sorted(path.rglob(name))), None)
        if deeper is not None:
            return f"not a folder of one run; did you mean {deeper}?"
        inside = sorted(file for file in path.iterdir() if file.suffix in (".json", ".jsonl", ".csv"))
        several = f"; give files of it, for example {inside[0]} (of {len(inside)})" if inside else ""
        return f"no log of a run in this folder{several}"
    return "not a log that trueup doctor reads (docs/doctor.md lists them)"


_TELLING = ("metrics.jsonl", trainer_state.NAME, *json_rows.IN_FOLDERS)
