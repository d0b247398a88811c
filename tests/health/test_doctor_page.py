"""The page of the doctor says what the table of names says."""

from __future__ import annotations

import re
from pathlib import Path

from trueup.health.names import SAME, TOOLS
from trueup.health.readers.found import STEPS
from trueup.health.readers.json_rows import IN_FOLDERS
from trueup.health.readers.trainer_state import ARGUMENTS, NAME

PAGE = (Path(__file__).parents[2] / "docs/doctor.md").read_text(encoding="utf-8")


def test_every_name_that_changes_has_its_row() -> None:
    rows = re.findall(r"^\| ([^|`]+) \| `([^`]+)` \| (\w*) *\| `([^`]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    told = {(tool.strip(), name, method, ours) for tool, name, method, ours, _ in rows}
    known = {
        (tool.title, name, method, name if meaning.ours == SAME else meaning.ours)
        for tool in TOOLS.values()
        for method, table in (("", tool.names), *tool.by_method.items())
        for name, meaning in table.items()
        if meaning.ours is not None and (meaning.ours != SAME or meaning.note)
    }
    assert told == known and len(rows) == len(known)


def test_files_and_columns_that_are_looked_for_are_named() -> None:
    named = set(re.findall(r"`([^`\n]+)`", PAGE))
    assert {*STEPS, *IN_FOLDERS, NAME} <= named
    assert len(named & set(ARGUMENTS)) == 4
