"""The text log of torchtune's DiskLogger: lines of ``Step 3 | loss:0.69 lr:1e-06``."""

from __future__ import annotations

import re
from pathlib import Path

from trueup.health.readers.files import text
from trueup.health.readers.found import Found, from_rows

_LINE = re.compile(r"^Step (\d+) \| (.*)$", re.MULTILINE)
_PAIR = re.compile(r"(\S+?):(\S+)")


def recognises(path: Path) -> bool:
    """Is it a text file with such a line?"""
    return path.is_file() and path.suffix in (".txt", ".log") and _LINE.search(text(path)) is not None


def read(path: Path) -> tuple[Found, ...]:
    """Read every such line."""
    series, notes = from_rows({"step": step, **dict(_PAIR.findall(rest))} for step, rest in _LINE.findall(text(path)))
    return (Found(series, tool="torchtune", notes=notes),)
