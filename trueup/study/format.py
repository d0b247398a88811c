"""Numbers in words: one way to write each kind of number, for the page, the pull request and the terminal."""

from __future__ import annotations

import math

from trueup.study.schema import Number

DASH = "–"


def fixed(value: Number) -> str:
    """Return two decimals with a true minus sign, or a dash for a number that is not available."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:,.2f}"
    return text.replace("-", "" if text.strip("-0.") == "" else "−")


def signed(value: Number) -> str:
    """Return ``fixed`` with a plus sign before positive numbers: for differences."""
    text = fixed(value)
    return text if text[0] in "−–" or text.strip("0.") == "" else f"+{text}"


def interval(low: Number, high: Number) -> str:
    """Return ``[low, high]``, or nothing when either end is not available."""
    ends = fixed(low), fixed(high)
    return "" if DASH in ends else f"[{ends[0]}, {ends[1]}]"


def whole(value: Number) -> str:
    """Return a count with thousands separated."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.0f}".replace("-", "−")


def scaled(value: Number) -> str:
    """Return a large count with three digits and the letter of its power of a thousand: 12.3k, 4.56T."""
    if value is None or not math.isfinite(value):
        return DASH
    rounded = float(f"{value:.3g}")
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(rounded) >= max(size, 1e4):
            return f"{rounded / size:.3g}{letter}".replace("-", "−")
    return whole(value)


def p_value(value: Number) -> str:
    """Return three decimals, and never a zero."""
    if value is None or not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: Number) -> str:
    """Return seconds below two minutes, then minutes, then hours."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def plain(text: object) -> str:
    """Return text without control characters: terminal colour codes and cursor moves lose their effect."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(text))
