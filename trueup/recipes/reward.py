"""A reward model, from top to bottom, with what must be known before anything is optimised against it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from trueup.config.schema import RewardConfig
from trueup.data.encode import EncodedSet, encode_pairs
from trueup.data.read import read_pairs
from trueup.evaluate.reward_model import judge_reward_model, reward_card
from trueup.models import hub
from trueup.models.scoring import reads_both_ways
from trueup.preflight.identity import read_back_findings
from trueup.preflight.pairs import pair_findings
from trueup.recipes.bench import Bench, Voice, choose_layout, held_out, set_up, train
from trueup.recipes.plan import tell_plan
from trueup.runtime.journal import Journal
from trueup.train.loop import RunSummary
from trueup.train.objectives.reward import RewardObjective
from trueup.train.sources import DataSource


def run_reward(config: RewardConfig, voice: Voice) -> RunSummary:
    """Train a Bradley-Terry reward model; ``final/`` loads with ``AutoModelForSequenceClassification``.

    With held-out pairs (``data.validation``) the folder also gets ``reward_model.json``: accuracy with its interval,
    calibration, the train/held-out gap, the correlation with length; and findings that say so when the model must not
    be optimised against.
    """
    loaded = read_pairs(config.data.path, limit=config.data.limit)
    bench = set_up(config, voice, _load)
    data = encode_pairs(loaded, bench.encoder, bench.bounds())
    held = _validation(config, bench)
    voice.say(data.describe())
    if reads_both_ways(bench.model):
        bench.batching = replace(bench.batching, layout="plain")
    else:
        choose_layout(bench, data)
    tell_plan(bench, data, "pairs")

    source = DataSource(data.trees, config.optim.batch_size, config.run.seed, bench.batching)
    objective = RewardObjective(config.reward.centring)
    summary = train(
        bench,
        bench.model,
        source,
        objective,
        bench.steps(data),
        facts={"method": "reward", "data": data.fingerprint},
        early=read_back_findings(data.read_back, bench.encoder) + pair_findings(data),
        evaluate=held_out(bench, objective, held),
    )
    _report(bench, data, held)
    return summary


def _load(config: Any, tokenizer: Any) -> Any:
    """A scalar head on a trained backbone, or on a fresh one of a preset's shape."""
    if config.model.path is not None:
        return hub.load_scorer(config.model.path, config.model.dtype, tokenizer)
    build = hub.new_encoder_scorer if config.reward.backbone == "encoder" else hub.new_causal_scorer
    return build(config.model.preset, len(tokenizer), tokenizer, config.model.context)


def _validation(config: RewardConfig, bench: Bench) -> EncodedSet | None:
    path = config.data.validation
    return encode_pairs(read_pairs(path), bench.encoder, bench.bounds()) if path else None


def _report(bench: Bench, data: EncodedSet, held: EncodedSet | None) -> None:
    """Write the card of the finished model and the findings it gives rise to."""
    card = reward_card(bench.model, data.trees, held.trees if held else (), bench.batching)
    text = json.dumps(card, indent=1)
    (bench.folder / "reward_model.json").write_text(text, encoding="utf-8")
    journal = Journal(bench.folder / "findings.jsonl")
    for finding in judge_reward_model(card):
        journal.append(finding.row())
        bench.voice.say(f"{finding.severity}: {finding.message} {finding.remedy}")
