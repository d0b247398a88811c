"""What a family of tasks is: a record of functions, with the pieces that several families share."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trueup.worlds.errands.templates import ListStyle, with_and, with_commas
from trueup.worlds.errands.vocabulary import CLASS_OF, WORDS_OF_CLASS

Content = Mapping[str, Any]
"""What one prompt asks, in JSON types: ``kind``, usually ``items``, and whatever else the family needs."""

Answer = tuple[tuple[str, tuple[str, ...]], ...]
"""An answer before it is written down: labelled lists of key words."""

Slots = Counter[Hashable]
"""What an answer says, as a bag of statements; F1 between two bags is the content score."""


@dataclass(frozen=True)
class Family:
    """One kind of task.

    Attributes:
        name: For tables and prompts' ids.
        asks: By ``content["kind"]``, the wordings of the request; ``{items}`` and other fields of the content are
            filled in. Every kind has the same number of wordings.
        draw: Draws one content.
        held_by: The part of a content that decides its portion. Contents with equal ideal answers must agree in it.
        answer: The ideal answer of a content.
        write: Turns an answer, ideal or corrupted, into text.
        slots: What a response says, read off its key words; never fails.
        form: What a well-formed answer looks like, as a whole.
        styles: The ways in which ``content["items"]`` may be listed in a prompt.
    """

    name: str
    asks: Mapping[str, Sequence[str]]
    draw: Callable[[random.Random], dict[str, Any]]
    held_by: Callable[[Content], str]
    answer: Callable[[Content], Answer]
    write: Callable[[Content, Answer], str]
    slots: Callable[[Sequence[str]], Slots]
    form: re.Pattern[str]
    styles: Sequence[ListStyle] = (with_commas, with_and)

    def ideal(self, content: Content) -> str:
        """Return the text of the ideal answer."""
        return self.write(content, self.answer(content))


def spell(pattern: str) -> re.Pattern[str]:
    """Compile a form in which ``<item>``, ``<group>`` and so on stand for any word of that class."""
    return re.compile(re.sub(r"<(\w+)>", lambda match: f"(?:{'|'.join(WORDS_OF_CLASS[match[1]])})", pattern))


def some(rng: random.Random, pool: Sequence[str], count: int) -> list[str]:
    """Draw ``count`` different words, listed from a to z.

    The order of mention is how a person answers. That it is also a fixed order of the words is what a model of two
    layers needs: finding the next word in rank takes it far fewer examples than finding its own place in a list.
    """
    return sorted(rng.sample(pool, count))


def sorted_items(content: Content) -> str:
    """Return the items regardless of their order: the usual ``held_by``."""
    return " ".join(sorted(content["items"]))


def bag(keys: Sequence[str]) -> Slots:
    """Read each key word as one statement."""
    return Counter(keys)


def headed(head: str, body: Sequence[str]) -> Callable[[Sequence[str]], Slots]:
    """Return a reader for which each word of a class in ``body`` is stated of the latest word of class ``head``."""

    def read(keys: Sequence[str]) -> Slots:
        latest, found = "", Slots()
        for key in keys:
            if CLASS_OF[key] == head:
                latest = key
            elif CLASS_OF[key] in body:
                found[latest, key] += 1
        return found

    return read


def of_first(keys: Sequence[str]) -> Slots:
    """Read the first word as a choice, and each later one as stated of it: a wrong choice leaves nothing right."""
    return Slots((keys[0], key) for key in keys)
