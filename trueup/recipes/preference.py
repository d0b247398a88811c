"""DPO and its relatives, ORPO among them, from top to bottom."""

from __future__ import annotations

import sys
from dataclasses import replace

from trueup.config.preference import PairLossSection, PreferenceSection
from trueup.config.schema import DpoConfig, OrpoConfig
from trueup.data.encode import EncodedSet, encode_pairs
from trueup.data.read import read_pairs
from trueup.errors import UserError
from trueup.losses.pairs import PairLoss, choose
from trueup.recipes.anchor import Anchor, anchor_pairs
from trueup.recipes.bench import Bench, Voice, choose_layout, held_out, load_policy, set_up, train
from trueup.recipes.checks import early_findings
from trueup.recipes.plan import tell_plan
from trueup.recipes.reference import require_same_vocabulary, require_unchanged
from trueup.train.companions import Companion, RunningMean
from trueup.train.loop import RunSummary
from trueup.train.objectives.preference import PreferenceObjective
from trueup.train.sources import DataSource


def run_dpo(config: DpoConfig, voice: Voice) -> RunSummary:
    """Tune a model on preference pairs; ``final/`` loads with ``AutoModelForCausalLM``."""
    loss = pair_loss(config.preference)
    _refuse_idle(config.preference, loss)
    return _run(config, voice, "dpo", loss)


def run_orpo(config: OrpoConfig, voice: Voice) -> RunSummary:
    """Fine-tune and prefer in one stage on preference pairs, without a reference."""
    return _run(config, voice, "orpo", choose("orpo", beta=config.orpo.beta))


def pair_loss(section: PairLossSection) -> PairLoss:
    """The loss that the settings describe; what does nothing for it is refused."""
    return choose(
        section.loss,
        beta=section.beta,
        label_smoothing=section.label_smoothing,
        options=section.options,
        divergence=section.divergence,
        alpha=section.divergence_alpha,
        weighting=section.weighting,
    )


def keep_steps_whole(bench: Bench, loss: PairLoss) -> None:
    """Make a step one forward pass if the loss is no sum over pairs."""
    if loss.couples_batch:
        bench.voice.say(f"{loss.name} ranks the pairs of a step against each other, so a step is one forward pass")
        bench.batching = replace(bench.batching, max_tokens=sys.maxsize)


def baseline_of(loss: PairLoss) -> RunningMean | None:
    """The running mean of implicit rewards, if the loss wants one."""
    return RunningMean("rewards/chosen", "rewards/rejected") if loss.running_mean else None


def _refuse_idle(section: PreferenceSection, loss: PairLoss) -> None:
    """Refuse what is about a reference where the loss uses none."""
    if loss.needs_reference:
        return
    given = [name for name in ("reference", "store", "sync_every") if getattr(section, name) is not None]
    given += ["rejected: reference"] if section.rejected == "reference" else []
    if given:
        raise UserError(
            f"preference.{given[0]} does nothing for {loss.name}, which uses no reference: "
            "remove it, or choose another loss"
        )


def _run(config: DpoConfig | OrpoConfig, voice: Voice, method: str, loss: PairLoss) -> RunSummary:
    loaded = read_pairs(config.data.path, limit=config.data.limit)
    bench = set_up(config, voice, load_policy)
    if isinstance(config, DpoConfig) and config.preference.reference is not None:
        require_same_vocabulary("reference", config.preference.reference, bench.tokenizer)
    data = encode_pairs(loaded, bench.encoder, bench.bounds())
    held = _validation(config, bench)
    voice.say(data.describe())
    choose_layout(bench, data)
    tell_plan(bench, data, "pairs")
    keep_steps_whole(bench, loss)

    baseline = baseline_of(loss)
    objective = PreferenceObjective(loss, baseline)
    anchor = Anchor()
    if isinstance(config, DpoConfig) and loss.needs_reference:
        anchor = anchor_pairs(config, bench, data, held)
    source = DataSource(
        data.trees, config.optim.batch_size, config.run.seed, bench.batching, anchor.train, anchor.complete
    )
    companions: dict[str, Companion | None] = {"baseline": baseline, "reference": anchor.moving}
    summary = train(
        bench,
        bench.model,
        source,
        objective,
        bench.steps(data),
        facts={"method": method, "data": data.fingerprint, "loss": loss.name, "reference": anchor.weights},
        early=early_findings(
            bench,
            method,
            objective,
            source,
            data,
            loaded,
            reference=anchor.model,
            same_model=anchor.same_model,
            stored=anchor.model is None,
            held=held,
        ),
        evaluate=held_out(bench, objective, held, anchor.held),
        companions={name: companion for name, companion in companions.items() if companion is not None},
    )
    if anchor.model is not None and anchor.moving is None:
        require_unchanged(anchor.model, anchor.weights)
    return summary


def _validation(config: DpoConfig | OrpoConfig, bench: Bench) -> EncodedSet | None:
    path = config.data.validation
    return encode_pairs(read_pairs(path), bench.encoder, bench.bounds()) if path else None
