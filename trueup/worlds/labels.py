"""Labels against the scores that they were drawn from."""

from __future__ import annotations

from trueup.worlds.protocol import World, WorldPrompt

TIE = 1e-9
"""Scores are sums of named parts: equal ones differ in their last bits."""


def agreement(world: World, prompt: WorldPrompt, chosen: str, rejected: str) -> float:
    """Return 1 where a label follows the annotator's scores, 0 where it contradicts them, and 1/2 where they are tied.

    Its mean over pairs is the label ceiling: the accuracy of a judge who knows the annotator's scores, ties counted as
    half as in the accuracy of a reward model, which no judge can beat in expectation. The scores are those that
    ``World.prefers_first`` draws labels from: both responses as ended.
    """
    lead = world.annotator(prompt, chosen) - world.annotator(prompt, rejected)
    return 0.5 if abs(lead) <= TIE else float(lead > 0)
