"""Suspects as changes to the right form: each fault alone, then every two of them that do not touch the same part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from trueup.preflight.conformance.protocol import Fault, Oracle, Suspect

Change = tuple[Fault, Mapping[str, Any]]
"""A fault, and the parts of the form that it changes with their new values."""


def suspects(changes: Sequence[Change], oracle: Callable[..., Oracle]) -> list[Suspect]:
    """The suspects of a kind, single faults first.

    Args:
        changes: the faults, likeliest first. A fault may stand there several times.
        oracle: changed parts -> what a function with these changes returns.
    """
    single = [Suspect(fault, oracle(**parts)) for fault, parts in changes]
    double = [
        Suspect(one, oracle(**parts, **more), (other,))
        for (one, parts), (other, more) in combinations(changes, 2)
        if one is not other and not set(parts) & set(more)
    ]
    return single + double
