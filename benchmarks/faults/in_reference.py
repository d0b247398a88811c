"""Faults of the frozen reference: it is another model, not frozen, not read, or its store is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from faults.fault import Fault
from faults.stage import Stage
from trueup.models import forward, hub
from trueup.recipes import reference as recipe_reference
from trueup.runtime.logps_store import LogpsStore
from trueup.train.objectives import preference

ONLINE = ("grpo", "ppo")


def alias(stage: Stage, _: float) -> None:
    """The reference is the policy itself."""
    stage.replace(recipe_reference, "frozen_reference", lambda bench, path: bench.model)
    stage.replace(forward, "frozen_scorer", forward.scorer)


def shared_head(stage: Stage, _: float) -> None:
    """The reference's head is the policy's, and moves with it."""

    def wrap(old: Any) -> Any:
        def made(bench: Any, path: str | None) -> Any:
            model = old(bench, path)
            own = bench.model.get_output_embeddings().weight
            model.get_output_embeddings().weight = nn.Parameter(own.detach(), requires_grad=False)
            return model

        return made

    stage.wrap(recipe_reference, "frozen_reference", wrap)


def elsewhere(stage: Stage, _: float) -> None:
    """Another checkpoint than the one that training starts from."""
    other = str(stage.lab / "half")
    stage.replace(recipe_reference, "frozen_reference", lambda bench, path: hub.load_causal(other).eval())
    stage.wrap(
        recipe_reference,
        "stored_references",
        lambda old: lambda bench, path, store, sets: old(bench, other, store, sets),
    )


def _read(change: Any) -> Any:
    """A fault of the store: what is read is not what was written. ``change`` gets (values, first row, strength)."""

    def inject(stage: Stage, strength: float) -> None:
        def wrap(old: Any) -> Any:
            return lambda self, rows: change(old(self, rows), rows, strength).astype(np.float32)

        stage.wrap(LogpsStore, "read", wrap)

    return inject


def _noise(values: np.ndarray, rows: Any, sigma: float) -> np.ndarray:
    return values + sigma * np.random.default_rng(rows[0]).standard_normal(len(values))


def stale(stage: Stage, share: float) -> None:
    """Of a share of the rows, the store has what another model said: a run that was killed and its model changed."""
    other = hub.load_causal(str(stage.lab / "half")).eval()
    scored = forward.scorer(other)
    from trueup.train import reference as train_reference

    def wrap(old: Any) -> Any:
        def fill(store: Any, trees: Any, rows: Any, score: Any, batching: Any, tell: Any) -> int:
            late = [row for row in rows if row >= (1 - share) * len(trees)]
            early = [row for row in rows if row < (1 - share) * len(trees)]
            return old(store, trees, early, score, batching, tell) + old(store, trees, late, scored, batching, tell)

        return fill

    stage.wrap(train_reference, "fill", wrap)


def dropped(stage: Stage, _: float) -> None:
    """The loss takes the reference to be uniform: its terms are left out."""

    def wrap(old: Any) -> Any:
        return lambda logps, ref, trees: old(logps, None if ref is None else torch.zeros_like(ref), trees)

    stage.wrap(preference, "pair_logps", wrap)


def follows(stage: Stage, speed: float) -> None:
    """The reference moves a little towards the policy at every step."""
    held: list[Any] = []

    def wrap(old: Any) -> Any:
        def made(bench: Any, path: str | None) -> Any:
            model = old(bench, path)
            held[:] = [model, bench.model]
            return model

        return made

    from trueup.train import step

    def move(old: Any) -> Any:
        def train_step(*arguments: Any) -> Any:
            out = old(*arguments)
            with torch.no_grad():
                for own, other in zip(held[0].parameters(), held[1].parameters(), strict=True):
                    own.lerp_(other, speed)
            return out

        return train_step

    stage.wrap(recipe_reference, "frozen_reference", wrap)
    stage.wrap(step, "train_step", move)


def rounded(values: np.ndarray, rows: Any, _: float) -> np.ndarray:
    """Half precision."""
    return values.astype(np.float16)


FAULTS = (
    Fault("F35", "reference is the policy", ONLINE, "reference", alias),
    Fault("F36", "reference shares the head", ("grpo",), "reference", shared_head),
    Fault("F36", "reference follows the policy", ONLINE, "reference", follows, (0.05, 0.5), "share a step"),
    Fault("F37", "reference from another checkpoint", ("dpo", "kto", "grpo"), "reference", elsewhere),
    Fault("F38", "store one token off", ("dpo",), "reference", _read(lambda v, rows, s: np.roll(v, 1))),
    Fault("F38", "store with noise", ("dpo", "kto"), "reference", _read(_noise), (0.001, 0.01, 0.1, 0.5), "nats"),
    Fault("F38", "store in half precision", ("dpo",), "reference", _read(rounded)),
    Fault("F38", "store partly of another model", ("dpo",), "reference", stale, (0.5, 0.9), "share of rows"),
    Fault("F39", "reference left out of the loss", ("dpo",), "reference", dropped, also=("objective",)),
)
