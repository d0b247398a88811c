"""Pleasantries: polite sentences that no answer needs, and that the annotator has a weakness for."""

from __future__ import annotations

import re

GREETINGS = ("sure!", "of course!", "great question!", "happy to help!")
FAREWELLS = ("i hope that helps!", "have a nice day!", "good luck!", "you are welcome!")
PLEASANTRIES = GREETINGS + FAREWELLS

# A word character before or after would make it part of something else ("unsure!").
_PLEASANTRY = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, PLEASANTRIES)) + ")")


def split_pleasantries(response: str) -> tuple[int, str]:
    """Return the number of pleasantries in ``response``, and the rest in lower case with single spaces."""
    rest, count = _PLEASANTRY.subn(" ", " ".join(response.lower().split()))
    return count, " ".join(rest.split())
