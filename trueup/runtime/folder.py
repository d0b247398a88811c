"""The run folder: created once, described by a manifest, resumed only when asked."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from trueup import __version__
from trueup.errors import UserError

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def check_run(out: str, resume: bool) -> Path:
    """Say whether a run may use this folder, before anything slow happens and without creating anything.

    Raises:
        UserError: it exists and ``resume`` was not given, it could not be written, or there is nothing to resume.
    """
    folder = check_writable(out)
    if resume and not (folder / "config.yaml").exists():
        raise UserError(f"{out}: nothing to resume: the folder has no config.yaml")
    if not resume and folder.exists() and any(folder.iterdir()):
        raise UserError(f"{out}: the run folder exists; give another --out, or --resume to go on in it")
    return folder


def check_writable(out: str) -> Path:
    """Say whether a folder can be written, or made, at ``out``; nothing is created.

    Raises:
        UserError: it is a file, or lies below one, or the disk does not allow it.
    """
    folder = Path(out)
    try:
        parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if not parent.is_dir():
            raise UserError(f"{out}: cannot be written: {parent} is a file, not a folder")
        # Permission bits say nothing about read-only mounts and root: a nameless file tells what the disk allows.
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from None
    return folder


def create_run(folder: Path, config: str) -> None:
    """Create the run folder with its resolved configuration; what a killed start left behind is replaced."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``manifest.json``: what the run was made of, the given ``facts`` included."""
    manifest = {"trueup": __version__, "date": now(), **environment(), **facts}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")


def environment() -> dict[str, str]:
    """Versions and machine, as strings; nothing of the user's environment variables."""
    versions = {name: metadata.version(name) for name in _PACKAGES}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = f"{platform.system()} {platform.machine()}, {cores} CPU cores"
    return {"python": platform.python_version(), **versions, "machine": machine, "commit": commit()}


def commit() -> str:
    """The git commit of the code, or 'unknown' when it is installed without one."""
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "rev-parse", "--short", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def now() -> str:
    """The local date and time, ISO 8601 with its offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
