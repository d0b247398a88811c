"""Templates such as ``<think>...</think> <answer>...</answer>``, where ``...`` stands for any text."""

from __future__ import annotations

import re

from trueup.errors import UserError

_GAP = "..."


class Template:
    """Fixed pieces with gaps between them; blanks of a piece stand for any blanks or none."""

    def __init__(self, text: str) -> None:
        """Compile a template.

        Raises:
            UserError: it has no gap or no fixed piece.
        """
        pieces = text.strip().split(_GAP)
        self._fixed = [unit.strip() for piece in pieces for unit in re.findall(r"<[^<>]+>|[^<>]+", piece)]
        self._fixed = [_even(unit) for unit in self._fixed if unit]
        if len(pieces) < 2 or not self._fixed:
            raise UserError(f"template {text!r}: write fixed text, and ... where any text may stand")
        self._text = _even(text)
        literal = [r"\s*".join(map(re.escape, re.split(r"\s+", piece))) for piece in pieces]
        self._whole = re.compile("(.*?)".join(literal), re.DOTALL)
        # A gap at the end takes all that follows; the greedy start finds the last place where the template fits.
        last = "(.*?)".join(literal[:-1]) + ("(.*?)" if literal[-1] else "(.*)") + literal[-1]
        self._inside = re.compile(".*" + last, re.DOTALL)

    def fits(self, text: str) -> bool:
        """Is the whole text of this form: no gap blank, and every fixed piece as often as in the template?"""
        found = self._whole.fullmatch(text.strip())
        if found is None or not all(map(str.strip, found.groups())):
            return False
        said = _even(text)
        return all(said.count(unit) == self._text.count(unit) for unit in self._fixed)

    def last_gap(self, text: str) -> str | None:
        """What stands for the last gap where the template last occurs in the text; None if it does not occur."""
        found = self._inside.match(text)
        return None if found is None else found.groups()[-1].strip()


def _even(text: str) -> str:
    return " ".join(text.split())
