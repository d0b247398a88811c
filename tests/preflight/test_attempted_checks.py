"""A check that fails by itself is told as skipped, with whatever its error says."""

from __future__ import annotations

import pytest

from trueup.preflight.outcome import attempt


@pytest.mark.parametrize("words", ["", "no such layer\nand more"])
def test_an_error_is_a_reason_and_no_end(words: str) -> None:
    def check() -> None:
        raise RuntimeError(words)

    outcome = attempt("padding", check)
    assert outcome is not None and outcome.status == "skipped"
    assert outcome.told == f"could not be made: RuntimeError: {words.partition(chr(10))[0]}"
