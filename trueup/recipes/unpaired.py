"""KTO and BCO on single responses that are marked wanted or unwanted, from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trueup.config.schema import KtoConfig, KtoSection
from trueup.data.encode import EncodedSet, encode_judged
from trueup.data.mismatch import mismatched
from trueup.data.read import read_judged
from trueup.data.records import Dropped, Judged, Loaded
from trueup.losses.catalog import check_options, lookup
from trueup.losses.entry import Loss
from trueup.recipes.bench import Bench, Voice, choose_layout, load_policy, on_batches, set_up, train
from trueup.recipes.checks import early_findings
from trueup.recipes.plan import tell_plan
from trueup.recipes.reference import require_same_vocabulary, stored_references
from trueup.train.companions import RunningMean
from trueup.train.loop import RunSummary
from trueup.train.objectives.unpaired import UnpairedObjective
from trueup.train.unpaired import ReferencePoint, UnpairedSource, mismatched_kl


@dataclass(frozen=True)
class JudgedSet:
    """Responses as token trees, bool ``[n]`` which are wanted, and the same prompts with responses to others."""

    encoded: EncodedSet
    desirable: np.ndarray
    foreign: EncodedSet | None

    def __len__(self) -> int:
        return len(self.encoded)


def run_kto(config: KtoConfig, voice: Voice) -> RunSummary:
    """Tune a model on judged responses; ``final/`` loads with ``AutoModelForCausalLM``."""
    loss = lookup(config.kto.loss, "unpaired")
    settings = _settings(config.kto, loss)
    loaded = read_judged(config.data.path, limit=config.data.limit)
    bench = set_up(config, voice, load_policy)
    if config.kto.reference is not None:
        require_same_vocabulary("reference", config.kto.reference, bench.tokenizer)
    data = _encoded(loaded, bench, loss)
    held = _encoded(read_judged(config.data.validation), bench, loss) if config.data.validation else None
    voice.say(data.encoded.describe())
    choose_layout(bench, data.encoded)
    tell_plan(bench, data.encoded, "responses")

    baseline = RunningMean("rewards/mean") if loss.running_mean else None
    objective = UnpairedObjective(loss, settings)
    (source, *rest), weights = _sources(config, bench, [data, held] if held else [data], baseline)
    return train(
        bench,
        bench.model,
        source,
        objective,
        bench.steps(data.encoded),
        facts={"method": "kto", "data": data.encoded.fingerprint, "loss": loss.name, "reference": weights},
        early=early_findings(
            bench,
            "kto",
            objective,
            source,
            data.encoded,
            loaded,
            same_model=config.kto.reference is None,
            stored=True,
            held=held.encoded if held else None,
        ),
        evaluate=on_batches(bench, objective, lambda: rest[0].sweep(bench.model)) if rest else None,
        companions={} if baseline is None else {"baseline": baseline},
    )


def _settings(section: KtoSection, loss: Loss) -> dict[str, float]:
    """Beta and the options that were given, refused where the loss has none."""
    given = section.model_dump(include={"beta", "desirable_weight", "undesirable_weight"}, exclude_none=True)
    check_options(loss, given)
    return loss.settings(given)


def _encoded(loaded: Loaded[Judged], bench: Bench, loss: Loss) -> JudgedSet:
    encoded = encode_judged(loaded, bench.encoder, bench.bounds())
    labels = np.array([not isinstance(row, Dropped) and row.label for row in loaded.rows])
    foreign = None if loss.running_mean else mismatched(encoded, bench.bounds())
    return JudgedSet(encoded, labels[encoded.row_numbers - 1], foreign)


def _sources(
    config: KtoConfig, bench: Bench, sets: Sequence[JudgedSet], baseline: RunningMean | None
) -> tuple[list[UnpairedSource], str]:
    """A source over each set (training, held-out), and the fingerprint of the reference's weights."""
    rows = [bench.rows(sets[0].encoded), *(range(len(held)) for held in sets[1:])]
    foreign = [judged.foreign for judged in sets if judged.foreign is not None]
    wanted = list(zip([*(judged.encoded for judged in sets), *foreign], rows * 2, strict=False))
    references, weights = stored_references(bench, config.kto.reference, config.kto.store, wanted)
    if baseline is not None:
        points: list[ReferencePoint] = [lambda model, rows: baseline.value] * len(sets)
    else:
        answers = references[len(sets) :]
        points = [mismatched_kl(f.trees, r, bench.batching) for f, r in zip(foreign, answers, strict=True)]
    manner = (config.optim.batch_size, config.run.seed, bench.batching)
    sources = [
        UnpairedSource(judged.encoded.trees, judged.desirable, *manner, reference, point)
        for judged, reference, point in zip(sets, references, points, strict=False)
    ]
    return sources, weights
