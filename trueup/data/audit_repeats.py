"""Rows that repeat, contradict or hardly differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from statistics import median
from typing import Any

from trueup.data.audit_sheet import Sheet, Side, tally


def repeats(sheet: Sheet) -> dict[str, Any]:
    """Rows that say again what an earlier one says, and prompts that several rows have.

    ``identical_rows`` counts every row after the first of its like (prompt, responses, label). ``repeated_prompts``
    counts the rows whose prompt another row has too; ``prompts`` how many prompts there are, ``largest`` the most rows
    of one.
    """
    first: dict[Hashable, int] = {}
    again = []
    for row, claim in _claims(sheet).items():
        earlier = first.setdefault(claim, row)
        if earlier != row:
            again.append(f"{sheet.where[row]} (as {sheet.where[earlier]})")
    rows_of = _rows_by_group(sheet)
    shared = [sheet.where[row] for rows in rows_of.values() if len(rows) > 1 for row in rows]
    total = len(sheet.where)
    return {
        "identical_rows": tally(again, total),
        "repeated_prompts": tally(shared, total)
        | {"prompts": len(rows_of), "largest": max(map(len, rows_of.values()), default=0)},
    }


def contradictions(sheet: Sheet) -> dict[str, Any]:
    """Verdicts that cannot both hold, and responses that are on both sides.

    ``reversed``: of pairs, A over B in this row and B over A in an earlier one of the same prompt; of judged rows, the
    same response to the same prompt with the other label. ``both_sides``: pairs whose chosen response is rejected in
    another row of the same prompt (A over B, B over C): right in a ranking, suspect elsewhere.
    """
    total, where = len(sheet.where), sheet.where
    wanted, unwanted = _by_claim(sheet, sheet.wanted), _by_claim(sheet, sheet.unwanted)
    if sheet.kind == "examples":
        return {"reversed": tally([], total), "both_sides": tally([], total)}
    if sheet.kind == "judged":
        against = [f"{where[wanted[key]]} against {where[unwanted[key]]}" for key in wanted if key in unwanted]
        return {"reversed": tally(against, total), "both_sides": tally([], total)}
    seen: dict[Hashable, int] = {}
    against, both = [], []
    for row, (group, chosen, rejected) in enumerate(_claims(sheet).values()):
        seen.setdefault((group, chosen, rejected), row)
        if (group, rejected, chosen) in seen:
            against.append(f"{where[row]} against {where[seen[group, rejected, chosen]]}")
        elif (group, chosen) in unwanted:
            both.append(f"{where[row]} and {where[unwanted[group, chosen]]}")
    return {"reversed": tally(against, total), "both_sides": tally(both, total)}


def likeness(sheet: Sheet) -> dict[str, Any] | None:
    """How alike the two sides of pairs are; None for other kinds.

    ``near_identical``: equal but for white space and case. ``begins_with``: one side is the beginning of the other (a
    cut). ``shared_start``: median share of the longer side that is a common beginning.
    """
    if sheet.kind != "pairs":
        return None
    same, cut, starts = [], [], []
    for row, (a, b) in enumerate(zip(sheet.wanted.texts, sheet.unwanted.texts, strict=True)):
        shared = _common_start(a, b)
        starts.append(shared / max(len(a), len(b)))
        if _squeezed(a) == _squeezed(b):
            same.append(sheet.where[row])
        elif shared == min(len(a), len(b)):
            cut.append(f"{sheet.where[row]} ({'rejected' if len(a) > len(b) else 'chosen'} is the shorter)")
    total = len(starts)
    return {
        "near_identical": tally(same, total),
        "begins_with": tally(cut, total),
        "shared_start": median(starts) if starts else None,
    }


def _claims(sheet: Sheet) -> dict[int, tuple[Any, ...]]:
    """What each row says, in the order of the file: prompt and pair, or prompt, response and verdict."""
    if sheet.kind == "pairs":
        return dict(enumerate(zip(sheet.group.tolist(), sheet.wanted.texts, sheet.unwanted.texts, strict=True)))
    said: dict[int, tuple[Any, ...]] = {}
    for verdict, side in (("wanted", sheet.wanted), ("unwanted", sheet.unwanted)):
        said |= {row: (int(sheet.group[row]), text, verdict) for text, row in _rows(side)}
    return dict(sorted(said.items()))


def _by_claim(sheet: Sheet, side: Side) -> dict[Hashable, int]:
    """(prompt, response) -> the first row in which it is on this side."""
    first: dict[Hashable, int] = {}
    for text, row in _rows(side):
        first.setdefault((int(sheet.group[row]), text), row)
    return first


def _rows(side: Side) -> Iterable[tuple[str, int]]:
    return zip(side.texts, side.rows.tolist(), strict=True)


def _rows_by_group(sheet: Sheet) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(sheet.group.tolist()):
        rows[group].append(row)
    return rows


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()


def _common_start(a: str, b: str) -> int:
    """Length of the longest common beginning, by bisection: comparing slices is faster than comparing characters."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low
