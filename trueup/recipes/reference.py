"""The frozen reference of a run: which model it is, and how its log-probabilities come to the batches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from trueup.config.schema import KtoConfig
from trueup.data.encode import EncodedSet
from trueup.data.store import response_tokens_before
from trueup.errors import RunError, UserError
from trueup.models import adapters, hub
from trueup.models.forward import TokenLogps, scorer
from trueup.recipes.bench import Bench
from trueup.runtime import fingerprint
from trueup.runtime.cache import cache_folder
from trueup.runtime.logps_store import LogpsStore
from trueup.train.reference import fill, stored
from trueup.train.sources import Reference


def frozen_reference(bench: Bench, path: str | None) -> Any:
    """A reference that can be sampled from: a model of its own, or a copy of the policy before its first update.

    A resumed run builds it from the same start, never from the resumed weights.
    """
    model = copy.deepcopy(bench.model) if path is None else _load(bench, path)
    return model.eval().requires_grad_(False)


def stored_references(
    bench: Bench, path: str | None, store: str | None, sets: Sequence[tuple[EncodedSet, Sequence[int]]]
) -> tuple[list[Reference], str]:
    """References of data sets that read from disk what was computed once, and the fingerprint of their weights.

    The policy itself computes what is missing, before its first update, so no second model is ever in memory; a
    reference with a path is loaded for that and let go.

    Args:
        bench: the prepared run.
        path: a reference other than the policy as it starts.
        store: folder of stores; None = the user's cache.
        sets: data sets with the rows that will be needed.
    """
    model = bench.model if path is None else _load(bench, path)
    weights = bench.start if path is None else fingerprint.of_weights(model)
    score = adapters.without_adapters(model) if adapters.is_adapted(model) else scorer(model)
    where = Path(store) if store else cache_folder() / "reference"
    parts = {"weights": weights, "dtype": bench.config.model.dtype}
    filled = [_filled(bench, where, parts, data, rows, score) for data, rows in sets]
    computed, needed = sum(count for _, count in filled), sum(len(rows) for _, rows in sets)
    bench.voice.say(f"reference log-probabilities: {computed} rows computed, {needed - computed} read from {where}")
    return [stored(logps) for logps, _ in filled], weights


def _filled(
    bench: Bench, where: Path, parts: Mapping[str, str], data: EncodedSet, rows: Sequence[int], score: TokenLogps
) -> tuple[LogpsStore, int]:
    """The store of a data set with all the rows that are needed, and how many of them were computed for that."""
    setting = "kto.store" if isinstance(bench.config, KtoConfig) else "preference.store"
    store = LogpsStore(where, {**parts, "tokens": data.digest}, response_tokens_before(data.trees), setting)
    return store, fill(store, data.trees, rows, score, bench.batching, partial(bench.voice.prepare, "reference"))


def _load(bench: Bench, path: str) -> Any:
    """A reference whose vocabulary the recipe has checked."""
    return hub.load_causal(path, bench.config.model.dtype).to(bench.device)


def require_same_vocabulary(what: str, path: str, tokenizer: Any) -> None:
    """Refuse a second model that reads token ids otherwise than the policy: it would score noise without any sign."""
    if hub.load_tokenizer(path).get_vocab() != tokenizer.get_vocab():
        raise UserError(f"{what}: {path} has another vocabulary than the policy; both need the same tokenizer")


def require_unchanged(reference: nn.Module | None, before: str) -> None:
    """Fail if the frozen reference's weights, where there is one, are not what they were at the start."""
    if reference is not None and fingerprint.of_weights(reference) != before:
        raise RunError("the reference's weights changed during training; every margin and KL of this run is void")
