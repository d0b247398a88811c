"""Whether a label follows the scores it was drawn from."""

from __future__ import annotations

import math
import random

import pytest

from trueup.worlds.instruction import Errands
from trueup.worlds.labels import agreement

WORLD = Errands()
PROMPT = WORLD.prompts("validation")[0]
RIGHT, WRONG = WORLD.ideal(PROMPT), "no idea"


def test_a_label_agrees_contradicts_or_is_tied() -> None:
    assert agreement(WORLD, PROMPT, RIGHT, WRONG) == 1.0
    assert agreement(WORLD, PROMPT, WRONG, RIGHT) == 0.0
    assert agreement(WORLD, PROMPT, RIGHT, f" {RIGHT} ") == 0.5  # another text, the same words


def test_scores_that_differ_in_their_last_bits_are_tied() -> None:
    class Rounded(Errands):
        def annotator(self, prompt, response, ended=True):
            return 0.3 if response == "a" else 0.1 + 0.2

    assert 0.3 != 0.1 + 0.2
    assert agreement(Rounded(), PROMPT, "a", "b") == agreement(Rounded(), PROMPT, "b", "a") == 0.5


@pytest.mark.parametrize(("first", "second"), [(RIGHT, WRONG), (RIGHT, f"sure! {RIGHT}"), (RIGHT, f" {RIGHT} ")])
def test_the_ceiling_is_the_accuracy_that_bradley_terry_with_flips_allows(first: str, second: str) -> None:
    """The mean over labels is 0.05 + 0.9 sigmoid(|lead| / 0.3), and 1/2 for a tie: the labels' own distribution."""
    rng, found = random.Random(5), []
    for _ in range(4000):
        wins = WORLD.prefers_first(PROMPT, first, second, rng)
        found.append(agreement(WORLD, PROMPT, *((first, second) if wins else (second, first))))
    lead = abs(WORLD.annotator(PROMPT, first) - WORLD.annotator(PROMPT, second))
    expected = 0.05 + 0.9 / (1 + math.exp(-lead / 0.3))
    assert sum(found) / len(found) == pytest.approx(expected, abs=0.024)
