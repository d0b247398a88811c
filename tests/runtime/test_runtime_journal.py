"""The journal: whole lines, torn ends, steps that are made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trueup.errors import UserError
from trueup.runtime.journal import Journal

ROWS = [{"step": 1, "loss": 0.5}, {"step": 2, "note": "größer – 大"}, {"step": 3, "loss": 0.25}]


def filled(path: Path) -> Journal:
    journal = Journal(path / "metrics.jsonl")
    for row in ROWS:
        journal.append(row)
    return journal


def test_rows_come_back_and_none_are_there_before_the_first(tmp_path: Path) -> None:
    assert list(Journal(tmp_path / "metrics.jsonl").rows()) == []
    assert list(filled(tmp_path).rows()) == ROWS


def test_a_torn_last_line_is_skipped_wherever_it_tore(tmp_path: Path) -> None:
    """Also in the middle of a character; and a journal that is trimmed after that takes lines again."""
    journal = filled(tmp_path)
    whole = journal.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in range(len(whole) + 1):
        journal.path.write_bytes(whole[:kept])
        # A line that lacks nothing but its end is whole.
        complete = sum(kept >= len(b"".join(lines[: n + 1])) - 1 for n in range(len(lines)))
        assert list(journal.rows()) == ROWS[:complete], kept
        journal.keep_through(99)
        journal.append({"step": 4})
        assert list(journal.rows()) == [*ROWS[:complete], {"step": 4}]


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    for damage in (b"{broken", b"\xff\xfe"):
        lines = journal.path.read_bytes().split(b"\n")
        journal.path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
        with pytest.raises(UserError, match=r"metrics\.jsonl:2: not a JSON line"):
            list(journal.rows())


@pytest.mark.parametrize("step", [0, 1, 2, 3, 9])
def test_keep_through_drops_later_steps_alone(tmp_path: Path, step: int) -> None:
    journal = filled(tmp_path)
    journal.keep_through(step)
    assert list(journal.rows()) == [row for row in ROWS if int(str(row["step"])) <= step]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_keep_through_keeps_lines_that_belong_to_no_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "findings.jsonl")
    journal.append({"rule": "saturation", "first_step": 40})
    journal.keep_through(3)
    assert [row["rule"] for row in journal.rows()] == ["saturation"]


def test_keep_through_begins_an_empty_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "findings.jsonl")
    journal.keep_through(0)
    assert journal.path.read_bytes() == b""


def test_every_line_is_strict_json(tmp_path: Path) -> None:
    """Infinity and NaN are not JSON; they are null, inside evidence too."""
    journal = Journal(tmp_path / "findings.jsonl")
    journal.append({"loss": float("nan"), "evidence": {"ratio": float("inf"), "list": [float("-inf"), 1.0]}})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    line = journal.path.read_text(encoding="utf-8")
    assert json.loads(line, parse_constant=refuse) == {"loss": None, "evidence": {"ratio": None, "list": [None, 1.0]}}
