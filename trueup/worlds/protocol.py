"""What a world is: prompts, imperfect demonstrations, a gold score, and an annotator with a known bias."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SPLITS = ("sft", "preference", "validation", "test")


@dataclass(frozen=True)
class WorldPrompt:
    """One prompt of a world.

    Attributes:
        id: Unique within the world.
        text: What a model is given.
        family: The kind of task.
        template: The combination of wording the text was composed from.
        split: One of ``SPLITS``.
        content: What is asked, in JSON types: all that the gold score needs besides the family.
    """

    id: str
    text: str
    family: str
    template: str
    split: str
    content: Mapping[str, Any]


class World(Protocol):
    """A laboratory in which the true reward of every response is known.

    Randomness enters only through the ``rng`` that a caller hands in; everything else is a pure function.
    """

    @property
    def name(self) -> str:
        """The name it is loaded by."""
        ...

    @property
    def description(self) -> str:
        """One or two sentences for a report."""
        ...

    def prompts(self, split: str) -> Sequence[WorldPrompt]:
        """Return the prompts of one of ``SPLITS``: the same ones in the same order on every call and machine."""
        ...

    def demonstrate(self, prompt: WorldPrompt, rng: random.Random) -> str:
        """Return an imperfect answer, as a person who writes demonstrations would give."""
        ...

    def gold(self, prompt: WorldPrompt, response: str, ended: bool = True) -> dict[str, float]:
        """Return the named parts of the true reward; the gold score is their sum.

        Args:
            prompt: What was asked.
            response: Any string whatever.
            ended: Whether the response stopped by itself (its EOS was produced) rather than being cut off.
        """
        ...

    def annotator(self, prompt: WorldPrompt, response: str, ended: bool = True) -> float:
        """Return the score by which the annotator judges: gold plus a known bias."""
        ...

    def prefers_first(self, prompt: WorldPrompt, first: str, second: str, rng: random.Random) -> bool:
        """Draw one preference label: Bradley-Terry on annotator scores, with known label noise.

        Both responses count as ended: a pair is kept as text, and whoever learns from it sees a terminator after
        either response, so that a label for having been cut off could not be learnt.
        """
        ...

    def ideal(self, prompt: WorldPrompt) -> str:
        """Return a response of maximal gold."""
        ...
