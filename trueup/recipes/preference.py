"""DPO and its relatives, from top to bottom."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from trueup.config.schema import DpoConfig
from trueup.data.encode import EncodedSet, encode_pairs, read_back
from trueup.data.read import read_pairs
from trueup.data.trees import Tree
from trueup.health.findings import Finding
from trueup.losses.catalog import check_options, lookup
from trueup.models.forward import frozen_scorer
from trueup.models.generate import sample
from trueup.preflight.identity import identity_findings, measure_identity, read_back_findings
from trueup.preflight.pairs import pair_findings
from trueup.recipes.bench import (
    Bench,
    Voice,
    choose_layout,
    frozen_reference,
    held_out,
    load_policy,
    require_unchanged,
    set_up,
    train,
)
from trueup.runtime import fingerprint
from trueup.runtime.seeding import generator
from trueup.train.loop import RunSummary
from trueup.train.objectives.preference import PreferenceObjective
from trueup.train.sources import DataSource, TreeMaker
from trueup.types import Decoding


def run_dpo(config: DpoConfig, voice: Voice) -> RunSummary:
    """Tune a model on preference pairs; ``final/`` loads with ``AutoModelForCausalLM``."""
    section = config.preference
    loss = lookup(section.loss, "preference")
    smoothing = {"label_smoothing": section.label_smoothing} if section.label_smoothing else {}
    options = {**section.options, **smoothing}
    check_options(loss, options)
    loaded = read_pairs(config.data.path, limit=config.data.limit)
    bench = set_up(config, voice, load_policy)
    data = encode_pairs(loaded, bench.encoder, bench.bounds())
    held = _validation(config, bench)
    reference = frozen_reference(bench, section.reference)
    voice.say(data.describe())
    choose_layout(bench, data)
    if loss.couples_batch:
        voice.say(f"{loss.name} ranks the pairs of a step against each other, so a step is one forward pass")
        bench.batching = replace(bench.batching, max_tokens=sys.maxsize)

    before = fingerprint.of_weights(reference)
    scorer = frozen_scorer(reference) if loss.needs_reference else None
    objective = PreferenceObjective(loss, section.beta or loss.default_beta or 0.0, scorer, options)
    complete = _sampled_rejected(bench, reference) if section.rejected == "reference" else None
    source = DataSource(data.trees, config.optim.batch_size, config.run.seed, bench.batching, complete)
    summary = train(
        bench,
        bench.model,
        source,
        objective,
        bench.steps(data),
        facts={
            "method": "dpo",
            "data": data.fingerprint,
            "start": fingerprint.of_weights(bench.model),
            "reference": before,
            "loss": loss.name,
        },
        early=_preflight(config, bench, objective, loaded, data),
        evaluate=held_out(bench, objective, held),
    )
    require_unchanged(reference, before)
    return summary


def _preflight(
    config: DpoConfig, bench: Bench, objective: PreferenceObjective, loaded: Any, data: EncodedSet
) -> list[Finding]:
    """What can be known before the first update: the mask, the pairs, the identity of policy and reference."""
    records = [loaded.records[row] for row in data.rows]
    wrong = read_back(data.trees, [(record.chosen, record.rejected) for record in records], bench.encoder)
    findings = read_back_findings(wrong, len(data), bench.encoder) + pair_findings(data)
    if objective.reference is not None:
        found = measure_identity(bench.model, objective, data.trees[:8], bench.batching)
        findings += identity_findings(found, same_model=config.preference.reference is None)
        bench.voice.say(
            f"step 0: policy and reference differ by at most {found.token_difference:.1e} nats a token; "
            f"loss {found.loss:.6f} (at policy = reference: {found.expected:.6f})"
        )
    return findings


def _sampled_rejected(bench: Bench, reference: Any) -> TreeMaker:
    """Replace each step's rejected responses by fresh samples of the frozen reference."""
    config = bench.config
    assert isinstance(config, DpoConfig)
    decoding = Decoding(**config.decoding.model_dump())

    def complete(step: int, trees: list[Tree]) -> list[Tree]:
        rng = generator(config.run.seed, "rejected", step, device=bench.device)
        drawn = sample(reference, [tree.prompt for tree in trees], 1, decoding, bench.encoder.stops, rng)
        return [Tree(t.prompt, (t.responses[0], s[0].tokens)) for t, s in zip(trees, drawn, strict=True)]

    return complete


def _validation(config: DpoConfig, bench: Bench) -> EncodedSet | None:
    path = config.data.validation
    return encode_pairs(read_pairs(path), bench.encoder, bench.bounds()) if path else None
