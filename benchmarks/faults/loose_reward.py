"""A verifier that looks for words anywhere in a response, and so can be satisfied by listing them."""

from __future__ import annotations

from collections.abc import Sequence


def mentions(responses: Sequence[str], ended: Sequence[bool]) -> list[float]:
    """Return the number of "and" in each response, at most ten."""
    return [float(min(10, text.count("and"))) for text, _ in zip(responses, ended, strict=True)]
