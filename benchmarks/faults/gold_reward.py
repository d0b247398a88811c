"""The laboratory's true reward as a reward function of ``rollout.reward``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from trueup.worlds.protocol import World, WorldPrompt
from trueup.worlds.registry import load_world


def gold(
    responses: Sequence[str], ended: Sequence[bool], family: Sequence[str], content: Sequence[Mapping[str, Any]]
) -> list[float]:
    """Return the gold score of each response, at most 5.5."""
    world = _world()
    prompts = [WorldPrompt("", "", name, "", "", asked) for name, asked in zip(family, content, strict=True)]
    answers = zip(prompts, responses, ended, strict=True)
    return [sum(world.gold(prompt, text, stopped).values()) for prompt, text, stopped in answers]


@cache
def _world() -> World:
    return load_world("errands")
