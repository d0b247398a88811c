"""The instruction world ``errands``: small household tasks in plain English, with an exactly known reward.

Eight families share 20 things and about 170 words, so that a model of half a million parameters learns them in a
minute. The annotator likes pleasantries more than they cost, so a faithful reward model must part from the gold score.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from trueup.errors import UserError, nearest
from trueup.worlds.errands import constants, demonstrator, gold
from trueup.worlds.errands.families import FAMILIES
from trueup.worlds.errands.splits import prompts_of
from trueup.worlds.protocol import SPLITS, WorldPrompt


@dataclass(frozen=True)
class Errands:
    """The errands world; see ``trueup.worlds.protocol.World`` for what each method promises."""

    name: str = "errands"
    description: str = (
        "Small household tasks in plain English: put a packing list in order, find the odd one out, sort things into "
        "groups, equivalent fractions, facts about two things, short notes, comparisons, counts. The annotator pays "
        "for pleasantries, which the gold score takes points off for."
    )

    def prompts(self, split: str) -> Sequence[WorldPrompt]:
        """Return the prompts of one of ``SPLITS``: 6000 for SFT and for preferences, 640 for validation and test."""
        if split not in SPLITS:
            raise UserError(
                f"world '{self.name}' has no split '{split}'{nearest(split, SPLITS)} (it has: {', '.join(SPLITS)})"
            )
        return prompts_of(split)

    def demonstrate(self, prompt: WorldPrompt, rng: random.Random) -> str:
        """Return the ideal answer, spoilt by slips in about 38 % and adorned with pleasantries in 33 % of the calls."""
        return demonstrator.demonstrate(FAMILIES[prompt.family], prompt.content, rng)

    def gold(self, prompt: WorldPrompt, response: str, ended: bool = True) -> dict[str, float]:
        """Return the parts of the gold score; their sum is at most 5.5, and 5.5 for the ideal answer."""
        return gold.score(FAMILIES[prompt.family], prompt.content, response, ended)

    def annotator(self, prompt: WorldPrompt, response: str, ended: bool = True) -> float:
        """Return the gold score plus 0.45 for each pleasantry: net +0.15 each, without limit."""
        return sum(self.gold(prompt, response, ended).values()) + gold.bias(response)

    def prefers_first(self, prompt: WorldPrompt, first: str, second: str, rng: random.Random) -> bool:
        """Draw a label: first wins with probability sigmoid(score difference / 0.3); then 5 % of labels are flipped.

        Both responses count as ended (see ``trueup.worlds.protocol.World.prefers_first``).
        """
        lead = (self.annotator(prompt, first) - self.annotator(prompt, second)) / constants.TEMPERATURE
        # The logistic function as a tanh cannot overflow. Both numbers are always drawn, so that one label's outcome
        # does not shift the random numbers of the next.
        first_wins = rng.random() < 0.5 * (1.0 + math.tanh(0.5 * lead))
        flipped = rng.random() < constants.LABEL_FLIPS
        return first_wins != flipped

    def ideal(self, prompt: WorldPrompt) -> str:
        """Return the one answer that is right in content, order and form, with no word too many."""
        return FAMILIES[prompt.family].ideal(prompt.content)
