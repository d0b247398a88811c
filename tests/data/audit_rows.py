"""Records made by hand for the tests of the audit."""

from __future__ import annotations

from collections.abc import Sequence

from trueup.data.audit_sheet import Sheet, make_sheet
from trueup.data.records import Example, Judged, Message, Pair


def asked(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def pairs(rows: Sequence[tuple[str, str, str]]) -> Sheet:
    """A sheet of (prompt, chosen, rejected); row i is at ``f:i+1``."""
    return make_sheet("pairs", [Pair(asked(p), c, r, f"f:{i}") for i, (p, c, r) in enumerate(rows, 1)])


def judged(rows: Sequence[tuple[str, str, bool]]) -> Sheet:
    """A sheet of (prompt, response, wanted?)."""
    return make_sheet("judged", [Judged(asked(p), a, label, f"f:{i}") for i, (p, a, label) in enumerate(rows, 1)])


def examples(rows: Sequence[tuple[str, str]]) -> Sheet:
    """A sheet of (prompt, response)."""
    return make_sheet("examples", [Example(asked(p), a, f"f:{i}") for i, (p, a) in enumerate(rows, 1)])
