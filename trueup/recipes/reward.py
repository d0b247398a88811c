"""A reward model, from top to bottom, with what must be known before anything is optimised against it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trueup.config.schema import RewardConfig
from trueup.data.encode import EncodedSet, encode_pairs
from trueup.data.read import read_pairs
from trueup.data.records import Dropped, Loaded, Pair
from trueup.errors import UserError
from trueup.evaluate.reward_model import MOST_TRAINING_PAIRS, describe_card, reward_card
from trueup.evaluate.reward_model_page import card_page
from trueup.evaluate.reward_model_rules import judge_reward_model
from trueup.health.findings import Finding
from trueup.models import adapters, hub
from trueup.models.scalar_head import read_at_terminator
from trueup.models.scoring import reads_both_ways
from trueup.recipes.bench import Bench, Voice, choose_layout, on_batches, set_up, train
from trueup.recipes.checks import early_findings
from trueup.recipes.plan import tell_plan
from trueup.runtime import fingerprint
from trueup.train.loop import RunSummary
from trueup.train.objectives.reward import RewardObjective
from trueup.train.sources import DataSource


@dataclass(frozen=True)
class Pairs:
    """Pairs as token trees, and by how much each chosen score should lead, float ``[n]``, if that is asked for."""

    encoded: EncodedSet
    margins: np.ndarray | None


def run_reward(config: RewardConfig, voice: Voice) -> RunSummary:
    """Train a Bradley-Terry reward model; ``final/`` loads with ``AutoModelForSequenceClassification``.

    The folder also gets ``reward_model.json`` and, as a page to look at, ``reward_model.html``: accuracy with its
    interval, calibration, the gap between training and held-out pairs, what length and cutting do to the scores; and
    findings that say so when the model must not be optimised against.
    """
    loaded = read_pairs(config.data.path, limit=config.data.limit)
    bench = set_up(config, voice, _load)
    data = _encoded(loaded, config, bench)
    held = _encoded(read_pairs(config.data.validation), config, bench) if config.data.validation else None
    voice.say(data.encoded.describe())
    if changed := read_at_terminator(bench.model, bench.tokenizer, bench.encoder.terminator):
        voice.say(changed)
    if reads_both_ways(bench.model):
        bench.batching = replace(bench.batching, layout="plain")
    else:
        choose_layout(bench, data.encoded)
    tell_plan(bench, data.encoded, "pairs")

    source, objective = _source(data, config, bench), RewardObjective(config.reward.centring)
    return train(
        bench,
        bench.model,
        source,
        objective,
        bench.steps(data.encoded),
        facts={"method": "reward", "data": data.encoded.fingerprint},
        early=early_findings(
            bench, "reward", objective, source, data.encoded, loaded, held=held.encoded if held else None
        ),
        evaluate=on_batches(bench, objective, _source(held, config, bench).sweep) if held else None,
        conclude=lambda: _conclude(config, bench, data.encoded, held.encoded if held else None),
    )


def _load(config: Any, tokenizer: Any) -> Any:
    """A scalar head on a trained backbone, or on a fresh one of a preset's shape."""
    if config.model.path is not None:
        return hub.load_scorer(config.model.path, config.model.dtype, tokenizer)
    build = hub.new_encoder_scorer if config.reward.backbone == "encoder" else hub.new_causal_scorer
    return build(config.model.preset, len(tokenizer), tokenizer, config.model.context)


def _encoded(loaded: Loaded[Pair], config: RewardConfig, bench: Bench) -> Pairs:
    encoded = encode_pairs(loaded, bench.encoder, bench.bounds())
    if not config.reward.margin:
        return Pairs(encoded, None)
    told = np.array([0.0 if isinstance(row, Dropped) else _margin(row) for row in loaded.rows])
    return Pairs(encoded, config.reward.margin * told[encoded.row_numbers - 1])


def _margin(pair: Pair) -> float:
    if pair.margin is None:
        raise UserError(
            f"{pair.where}: has no margin (column 'margin', or two scores: docs/data.md), and reward.margin uses it; "
            "fill it in, or set reward.margin to 0"
        )
    if pair.margin < 0:
        raise UserError(
            f"{pair.where}: the margin {pair.margin:g} says that the rejected response is the better one; swap the "
            "two, remove the row, or set reward.margin to 0"
        )
    return pair.margin


def _source(pairs: Pairs, config: RewardConfig, bench: Bench) -> DataSource:
    return DataSource(
        pairs.encoded.trees, config.optim.batch_size, config.run.seed, bench.batching, margins=pairs.margins
    )


def _conclude(config: RewardConfig, bench: Bench, data: EncodedSet, held: EncodedSet | None) -> Sequence[Finding]:
    """Merge adapters, so that the head cannot be lost on the way; write the card of the finished model and judge it."""
    if adapters.is_adapted(bench.model):
        bench.model = adapters.merged(bench.model)
    trained = [data.trees[row] for row in bench.rows(data)[:MOST_TRAINING_PAIRS]]
    card = reward_card(
        bench.model,
        trained,
        held.trees if held else (),
        bench.batching,
        bench.encoder.terminator,
        config.reward.label_ceiling,
    )
    card = {"weights": fingerprint.of_weights(bench.model), "dtype": config.model.dtype, **card}
    findings = judge_reward_model(card, bench.steps(data))
    (bench.folder / "reward_model.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    (bench.folder / "reward_model.html").write_text(card_page(card, findings), encoding="utf-8")
    bench.voice.say(describe_card(card))
    return findings
