"""What must hold again when a run goes on from a checkpoint: taken when it is saved, and of what was restored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from trueup.runtime import fingerprint
from trueup.train.companions import Accompanied
from trueup.train.protocols import Source
from trueup.train.sources import DataSource
from trueup.train.step import TrainState
from trueup.train.unpaired import UnpairedSource
from trueup.types import TokenTrees


@dataclass(frozen=True)
class Seal:
    """What a run stands at, in a few hundred bytes.

    Attributes:
        step: optimiser steps that are made.
        rate: the learning rate of the next one.
        weights: fingerprint of the trained weights, float32 masters included.
        moments: of what the optimiser remembers.
        source: of the source's own state: totals so far, a rollout in use, companions.
        rows: of the responses that the next step trains on; None where they are still to be sampled.
    """

    step: int
    rate: float
    weights: str
    moments: str
    source: str
    rows: str | None

    def otherwise(self, other: Seal) -> list[str]:
        """Names of what is not the same; rows that one of the two does not know are not judged."""
        names = [name for name in ("step", "rate", "weights", "moments", "source") if _differ(self, other, name)]
        return names + (["rows"] if None not in (self.rows, other.rows) and _differ(self, other, "rows") else [])


def _differ(one: Seal, other: Seal, name: str) -> bool:
    return getattr(one, name) != getattr(other, name)


def seal_of(state: TrainState, source: Source, rows: str | None) -> Seal:
    """Take the seal of a run as it lies in memory."""
    weights = {**trained_state(state.model), **_leaves(state.masters.state() if state.masters else [], "master")}
    return Seal(
        step=state.step,
        rate=float(state.scheduler.get_last_lr()[0]),
        weights=_told(fingerprint.checksums(weights)),
        moments=_told(fingerprint.checksums(_leaves(state.optimizer.state_dict()["state"], "moments"))),
        source=_told(_plain(source.state())),
        rows=rows,
    )


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state without what is frozen: a base model under its adapters is on disk already."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def rows_ahead(source: Source, step: int) -> str | None:
    """Fingerprint of the responses of a step as the order of the data has them; None where they will be sampled."""
    data = _data(source)
    return None if data is None else rows_of([data.batching.collate([data.trees[row] for row in data.visited(step)])])


def rows_drawn(state: TrainState, source: Source) -> str | None:
    """The same of what the source gives when it is asked for the next step; it is left as it was."""
    if _data(source) is None:
        return None
    before = source.state()
    work = source.draw(state.model, state.step)
    source.restore(before)
    return rows_of([batch.trees for batch in work.batches])


def rows_of(batches: Iterable[TokenTrees]) -> str:
    """Fingerprint of the responses that are trained on, however they are cut and laid out."""
    found: Counter[str] = Counter()
    for trees in batches:
        lengths = trees.branch.bincount(minlength=trees.num_branches).tolist()
        found.update(str(ids.tolist()) for ids in trees.target.split(lengths))
    return fingerprint.of_text(json.dumps(sorted(found.items())))


def _data(source: Any) -> DataSource | UnpairedSource | None:
    """The source inside, if the responses of its steps are known beforehand."""
    inner: Any = source.source if isinstance(source, Accompanied) else source
    known = isinstance(inner, UnpairedSource) or (isinstance(inner, DataSource) and inner.complete is None)
    return inner if known else None


def _leaves(nest: Any, name: str) -> dict[str, Tensor]:
    return {path: value for path, value in _walk(nest, name) if isinstance(value, Tensor)}


def _plain(nest: Any) -> dict[str, Any]:
    """Path -> number, text, or checksum of a tensor."""
    leaves = dict(_walk(nest, ""))
    return {**leaves, **fingerprint.checksums({k: v for k, v in leaves.items() if isinstance(v, Tensor)})}


def _walk(nest: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(nest, Mapping):
        for key, value in nest.items():
            yield from _walk(value, f"{path}/{key}")
    elif isinstance(nest, list | tuple):
        for place, value in enumerate(nest):
            yield from _walk(value, f"{path}/{place}")
    else:
        yield path, nest


def _told(values: Mapping[str, Any]) -> str:
    return fingerprint.of_text(json.dumps(sorted(values.items())))
