"""Rewards of healthy runs that look odd: on another scale, seldom paid, for very short responses."""

from __future__ import annotations

WARM = ("great question", "happy to help", "sure!", "good luck", "welcome", "hope")
"""Pleasantries of the world errands."""


def shifted(responses: list[str]) -> list[float]:
    """Between 100 and 101: words up to eight, and one for a pleasantry; where zero lies means nothing."""
    return [100 + 0.5 * min(len(text.split()), 8) / 8 + 0.5 * any(word in text for word in WARM) for text in responses]


def sparse(responses: list[str]) -> list[float]:
    """1 for a pleasantry, else 0: some groups have none, some nothing else."""
    return [float(any(word in text for word in WARM)) for text in responses]


def early_letter(responses: list[str]) -> list[float]:
    """How early in the alphabet a response begins: as good for one word as for twenty."""
    return [(ord("z") - min(max(ord(text.strip()[:1].lower() or "z"), 97), 122)) / 25 for text in responses]
