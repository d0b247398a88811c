"""Supervised fine-tuning, from top to bottom."""

from __future__ import annotations

from trueup.config.schema import SftConfig
from trueup.data.encode import EncodedSet, encode_examples
from trueup.data.read import read_examples
from trueup.recipes.bench import Bench, Voice, choose_layout, held_out, load_policy, set_up, train
from trueup.recipes.checks import early_findings
from trueup.recipes.plan import tell_plan
from trueup.train.loop import RunSummary
from trueup.train.objectives.sft import SftObjective
from trueup.train.sources import DataSource


def run_sft(config: SftConfig, voice: Voice) -> RunSummary:
    """Train a model on prompts and responses; ``final/`` loads with ``AutoModelForCausalLM``."""
    loaded = read_examples(config.data.path, limit=config.data.limit)
    bench = set_up(config, voice, load_policy)
    data = encode_examples(loaded, bench.encoder, bench.bounds())
    held = _validation(config, bench)
    voice.say(data.describe())
    choose_layout(bench, data)
    tell_plan(bench, data, "examples")

    source = DataSource(data.trees, config.optim.batch_size, config.run.seed, bench.batching)
    objective = SftObjective()
    return train(
        bench,
        bench.model,
        source,
        objective,
        bench.steps(data),
        facts={"method": "sft", "data": data.fingerprint},
        early=early_findings(bench, "sft", objective, source, data, loaded, held=held),
        evaluate=held_out(bench, objective, held),
    )


def _validation(config: SftConfig, bench: Bench) -> EncodedSet | None:
    path = config.data.validation
    return encode_examples(read_examples(path), bench.encoder, bench.bounds()) if path else None
