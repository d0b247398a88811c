"""Verb -> recipe. Importing this module loads no recipe, and so no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

RUNNERS: Mapping[str, tuple[str, str]] = {
    "sft": ("trueup.recipes.sft", "run_sft"),
    "reward": ("trueup.recipes.reward", "run_reward"),
    "dpo": ("trueup.recipes.preference", "run_dpo"),
    "kto": ("trueup.recipes.unpaired", "run_kto"),
    "orpo": ("trueup.recipes.preference", "run_orpo"),
    "online-dpo": ("trueup.recipes.online_dpo", "run_online_dpo"),
    "ppo": ("trueup.recipes.ppo", "run_ppo"),
    "grpo": ("trueup.recipes.grpo", "run_grpo"),
    "rloo": ("trueup.recipes.grpo", "run_rloo"),
}
"""Each recipe is a function of (its configuration, a voice) that returns a ``RunSummary``."""


def recipe(verb: str) -> Callable[..., Any]:
    """Import and return the recipe of a training verb."""
    module, function = RUNNERS[verb]
    return getattr(importlib.import_module(module), function)
