"""Wording of prompts: parts that are shared by all families, and which combinations of parts are held out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

OPENERS = ("", "Hello!", "I need some help.", "One more thing.", "A small task.")
CLOSINGS = ("", "Keep it short.", "Thank you.", "Just the answer, please.")

ListStyle = Callable[[Sequence[str]], str]

# Of seven classes of combinations, one is kept for validation and one for test. Each part has its own weight, so that
# no part is confined to one class: every wording is trained, but never in the company it keeps in a held-out prompt.
_CLASSES = 7
_WEIGHTS = (1, 2, 3, 4)
_HELD_OUT = {5: "validation", 6: "test"}


@dataclass(frozen=True)
class Template:
    """One combination of wordings, as indices into the tables of parts."""

    opener: int
    ask: int
    style: int
    closing: int

    @property
    def name(self) -> str:
        """A name such as ``"o1-a0-s1-c2"``."""
        return f"o{self.opener}-a{self.ask}-s{self.style}-c{self.closing}"

    @property
    def portion(self) -> str:
        """``"train"``, ``"validation"`` or ``"test"``: the only portion whose prompts may use this combination."""
        parts = (self.opener, self.ask, self.style, self.closing)
        code = sum(w * part for w, part in zip(_WEIGHTS, parts, strict=True)) % _CLASSES
        return _HELD_OUT.get(code, "train")


@cache
def templates(asks: int, styles: int, portion: str) -> tuple[Template, ...]:
    """Return the combinations of ``asks`` wordings and ``styles`` list styles that belong to ``portion``."""
    sizes = (len(OPENERS), asks, styles, len(CLOSINGS))
    every = (Template(*parts) for parts in itertools.product(*map(range, sizes)))
    return tuple(template for template in every if template.portion == portion)


def compose(template: Template, request: str) -> str:
    """Return the prompt: opener, request and closing of ``template``, those that are not empty."""
    return " ".join(filter(None, (OPENERS[template.opener], request, CLOSINGS[template.closing])))


def with_commas(words: Sequence[str]) -> str:
    """Return ``"a, b, c"``."""
    return ", ".join(words)


def with_and(words: Sequence[str]) -> str:
    """Return ``"a, b and c"``."""
    return _joined(words, "and")


def with_or(words: Sequence[str]) -> str:
    """Return ``"a, b or c"``."""
    return _joined(words, "or")


def the_with_and(words: Sequence[str]) -> str:
    """Return ``"the a, the b and the c"``."""
    return with_and([f"the {word}" for word in words])


def _joined(words: Sequence[str], last: str) -> str:
    if len(words) < 2:
        return with_commas(words)
    return f"{with_commas(words[:-1])} {last} {words[-1]}"
