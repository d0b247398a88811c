"""The few errors a user meets. Each message says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrueupError(Exception):
    """Base of every error that is reported as one line, without a traceback."""


class UserError(TrueupError):
    """The input is at fault: a file, a field, a flag, a folder. Exit code 2."""


class RunError(TrueupError):
    """The run itself failed: numbers that are not finite, weights that changed. Exit code 1."""


class GateError(TrueupError):
    """A health gate or a required verdict was not met. Exit code 3."""


class Interrupted(TrueupError):
    """The user stopped the run; what is on disk can be resumed. Exit code 130."""


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
