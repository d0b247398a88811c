"""A world of one's own, complete in one file: the right answer repeats the prompt's word in capitals.

world: examples/own_world.py:Shout        # in a study file
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from trueup.worlds.protocol import SPLITS, WorldPrompt

WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "bdgklmnprst"]


class Shout:
    """Answer a word with the same word in capitals."""

    name = "shout"
    description = "Repeat a word in capitals."

    def prompts(self, split: str) -> Sequence[WorldPrompt]:
        """Every fourth word belongs to a split, so no word is in two of them."""
        words = WORDS[SPLITS.index(split) :: len(SPLITS)]
        return [WorldPrompt(f"{split}/{w}", f"say {w}", "shout", "say", split, {"word": w}) for w in words]

    def ideal(self, prompt: WorldPrompt) -> str:
        """The word in capitals."""
        return prompt.content["word"].upper()

    def demonstrate(self, prompt: WorldPrompt, rng: random.Random) -> str:
        """Right four times in five, else too quiet."""
        return self.ideal(prompt) if rng.random() < 0.8 else prompt.content["word"]

    def gold(self, prompt: WorldPrompt, response: str, ended: bool = True) -> dict[str, float]:
        """One point for the letters, one for shouting them, half a point for stopping."""
        said = response.strip()
        return {
            "word": float(said.lower() == prompt.content["word"]),
            "loud": float(said.isupper()),
            "ending": 0.5 * ended,
        }

    def annotator(self, prompt: WorldPrompt, response: str, ended: bool = True) -> float:
        """Likes exclamation marks more than is good."""
        return sum(self.gold(prompt, response, ended).values()) + 0.2 * response.count("!")

    def prefers_first(self, prompt: WorldPrompt, first: str, second: str, rng: random.Random) -> bool:
        """The better one in the annotator's eyes, nine times in ten."""
        better = self.annotator(prompt, first) >= self.annotator(prompt, second)
        return better if rng.random() < 0.9 else not better
