"""What the policy of a run on pairs is compared with: a store, a frozen model, or one that follows the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trueup.config.schema import DpoConfig
from trueup.data.encode import EncodedSet
from trueup.data.trees import Tree
from trueup.models.forward import frozen_scorer
from trueup.models.generate import sample
from trueup.recipes.bench import Bench
from trueup.recipes.reference import frozen_reference, stored_references
from trueup.runtime import fingerprint
from trueup.runtime.seeding import generator
from trueup.train.companions import MovingReference
from trueup.train.reference import live
from trueup.train.sources import Reference, TreeMaker
from trueup.types import Decoding

SYNC_MIXUP = 0.6
"""Gorbatovski et al. 2024 find 0.5 to 0.6 best for mixing weights; TRL's default."""


@dataclass(frozen=True)
class Anchor:
    """The reference of a run; without one, as it stands.

    Attributes:
        train, held: what it says of the training and of the held-out data.
        weights: fingerprint of its weights at the start.
        same_model: is it the policy as it starts?
        model: itself, where it is kept in memory.
        moving: what moves it, where it moves.
        complete: what puts its samples in for the rejected responses.
    """

    train: Reference | None = None
    held: Reference | None = None
    weights: str = "none"
    same_model: bool = True
    model: Any = None
    moving: MovingReference | None = None
    complete: TreeMaker | None = None


def anchor_pairs(config: DpoConfig, bench: Bench, data: EncodedSet, held: EncodedSet | None) -> Anchor:
    """Read what the reference says from a store; keep it as a model only if it is sampled from or moves."""
    section = config.preference
    same = section.reference is None
    if section.rejected == "file" and section.sync_every is None:
        sets = [(data, bench.rows(data)), *([(held, range(len(held)))] if held else [])]
        references, weights = stored_references(bench, section.reference, section.store, sets)
        return Anchor(references[0], references[-1] if held else None, weights, same)
    model = frozen_reference(bench, section.reference)
    reference = live(frozen_scorer(model))
    moving = None
    if section.sync_every is not None:
        moving = MovingReference(model, bench.model, section.sync_every, section.sync_mixup or SYNC_MIXUP)
    complete = _sampled_rejected(config, bench, model) if section.rejected == "reference" else None
    return Anchor(reference, reference, fingerprint.of_weights(model), same, model, moving, complete)


def _sampled_rejected(config: DpoConfig, bench: Bench, reference: Any) -> TreeMaker:
    """Replace each step's rejected responses by fresh samples of the reference."""
    decoding = Decoding(**config.decoding.model_dump())

    def complete(step: int, trees: list[Tree]) -> list[Tree]:
        rng = generator(config.run.seed, "rejected", step, device=bench.device)
        drawn = sample(reference, [tree.prompt for tree in trees], 1, decoding, bench.encoder.stops, rng)
        return [Tree(t.prompt, (t.responses[0], s[0].tokens)) for t, s in zip(trees, drawn, strict=True)]

    return complete
