"""What every recipe sets up before it differs from the others: model, tokenizer, folder, journal, checkpoints."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import nn

from trueup.config.load import dump, leaves, read_yaml, validate
from trueup.config.schema import RecipeConfig
from trueup.data.batching import Batching
from trueup.data.encode import Bounds, EncodedSet
from trueup.data.template import Encoder, make_encoder
from trueup.data.trees import Layout
from trueup.errors import UserError
from trueup.health.findings import Finding
from trueup.models import adapters, hub
from trueup.models.attention import FLEX
from trueup.ops import products
from trueup.preflight.layout import prove_layout
from trueup.recipes.resumed import resumed_findings
from trueup.recipes.saved import saved_findings
from trueup.recipes.watch import FindingsSink, Gate, set_gate
from trueup.runtime import checkpoint, fingerprint
from trueup.runtime.device import prepare
from trueup.runtime.folder import check_run, create_run, write_manifest
from trueup.runtime.journal import Journal
from trueup.runtime.seeding import seed_globally
from trueup.runtime.trackers import Tracked
from trueup.runtime.tracking import Trackers, check_trackers
from trueup.train.companions import Accompanied, Companion
from trueup.train.loop import Plan, RunSummary, run, unpack_state
from trueup.train.master import MasterWeights
from trueup.train.optim import make_optimizer
from trueup.train.protocols import Objective, Source, StepReport
from trueup.train.reference import visited
from trueup.train.sources import DataSource, Reference
from trueup.train.step import TrainState, evaluate_objective


class Voice(Protocol):
    """How a recipe speaks to whoever started it: a terminal, a study, a test."""

    def say(self, text: str) -> None:
        """Tell one line."""
        ...

    def prepare(self, what: str, done: int, total: int) -> None:
        """Hear how far something slow before the first step has come."""
        ...

    def begin(self, steps: int, done: int) -> None:
        """Announce the number of optimiser steps and how many a resumed run has made already."""
        ...

    def __call__(self, report: StepReport) -> None:
        """See a finished step."""
        ...


class Silence:
    """A voice that says nothing."""

    def say(self, text: str) -> None:
        """Drop the line."""

    def prepare(self, what: str, done: int, total: int) -> None:
        """Drop the progress."""

    def begin(self, steps: int, done: int) -> None:
        """Drop the announcement."""

    def __call__(self, report: StepReport) -> None:
        """Drop the report."""


@dataclass
class Bench:
    """A prepared run: everything but the data and the method.

    ``start`` is the fingerprint of the weights it starts from, without adapters.
    """

    config: RecipeConfig
    folder: Path
    voice: Voice
    device: torch.device
    tokenizer: Any
    encoder: Encoder
    model: Any
    start: str
    batching: Batching

    def bounds(self, extra: int = 0) -> Bounds:
        """Length limits of this run's data."""
        return Bounds(hub.context_length(self.model), self.config.data.max_length, extra)

    def steps(self, data: EncodedSet) -> int:
        """Optimiser steps: as configured, else one pass over the data."""
        return self.config.optim.steps or math.ceil(len(data) / self.config.optim.batch_size)

    def rows(self, data: EncodedSet) -> Sequence[int]:
        """The rows of the data that the run will draw, in ascending order."""
        return visited(self.steps(data), self.config.optim.batch_size, len(data), self.config.run.seed)


def set_up(config: RecipeConfig, voice: Voice, load: Callable[[RecipeConfig, Any], Any]) -> Bench:
    """Check the run folder, load tokenizer and model (``load``), and return the bench. Nothing is written yet."""
    folder = check_run(config.run.out, config.run.resume)
    check_trackers(config.run.trackers)
    if config.run.resume:
        _require_same_settings(config, folder / "config.yaml")
    device = prepare(config.run.device, config.run.threads)
    if config.model.attention == "flex" and device.type != "cuda":
        raise UserError("model.attention: FlexAttention has no backward pass on a CPU; leave it at auto")
    tokenizer = hub.load_tokenizer(config.model.tokenizer or config.model.path or "")
    seed_globally(config.run.seed, "weights")
    model = load(config, tokenizer).to(device)
    start = fingerprint.of_weights(model)
    if config.model.attention == "flex":
        model.set_attn_implementation(FLEX)
    if config.model.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model = _adapted(config, model)
    layout: Layout = "shared" if config.model.layout == "auto" else config.model.layout
    batching = Batching(layout, config.optim.micro_batch_tokens, device)
    return Bench(config, folder, voice, device, tokenizer, make_encoder(tokenizer), model, start, batching)


def _adapted(config: RecipeConfig, model: Any) -> Any:
    """The model with the adapters that were asked for, if any."""
    lora = getattr(config, "lora", None)
    if lora is None or lora.rank is None:
        return model
    if config.model.path is None:
        raise UserError("lora.rank: adapters need a trained model to adapt: give model.path, not model.preset")
    seed_globally(config.run.seed, "adapters")
    base = str((_kept_base(config) or Path(config.model.path)).absolute())
    return adapters.attach(model, base, lora.rank, lora.alpha, lora.dropout, lora.targets)


def _kept_base(config: RecipeConfig) -> Path | None:
    """Where the run keeps the model under its adapters, if PEFT could not load it from ``model.path``.

    That is so for a ``.gguf`` file, and for a folder with adapters: they are merged in, and the new ones are over both.
    """
    lora, path = getattr(config, "lora", None), config.model.path or ""
    if lora is None or lora.rank is None or not (path.endswith(".gguf") or adapters.base_path(path)):
        return None
    return Path(config.run.out) / "base"


def load_policy(config: RecipeConfig, tokenizer: Any) -> Any:
    """The causal model a recipe starts from: a folder, a .gguf file, or a preset with fresh weights."""
    if config.model.path is not None:
        return hub.load_causal(config.model.path, config.model.dtype)
    assert config.model.preset is not None
    return hub.new_causal(config.model.preset, len(tokenizer), tokenizer, config.model.context)


def choose_layout(bench: Bench, data: EncodedSet) -> None:
    """With ``layout: auto``, trust the shared layout only if it equals the plain one on the first trees."""
    if bench.config.model.layout == "auto":
        proof = prove_layout(bench.model, data.trees, bench.batching)
        bench.voice.say(proof.message)
        bench.batching = Batching(proof.layout, bench.batching.max_tokens, bench.device)


def held_out(
    bench: Bench, objective: Objective, data: EncodedSet | None, reference: Reference | None = None
) -> Callable[[int], Mapping[str, float]] | None:
    """An evaluation of the objective on held-out trees, its metrics prefixed with ``eval/``."""
    if data is None:
        return None
    return on_batches(
        bench, objective, DataSource(data.trees, bench.config.optim.batch_size, 0, bench.batching, reference).sweep
    )


def on_batches(
    bench: Bench, objective: Objective, sweep: Callable[[], Iterable[Any]]
) -> Callable[[int], Mapping[str, float]]:
    """An evaluation of the objective on the batches of ``sweep``, its metrics prefixed with ``eval/``."""

    def evaluate(step: int) -> Mapping[str, float]:
        rows: list[int] = []
        metrics = evaluate_objective(bench.model, objective, _counted(sweep(), rows))
        return {f"eval/{name}": value for name, value in {**metrics, "num_examples": float(sum(rows))}.items()}

    return evaluate


def _counted(batches: Iterable[Any], rows: list[int]) -> Iterator[Any]:
    """The batches, whose numbers of trees are appended to ``rows`` as they pass."""
    for batch in batches:
        rows.append(int(batch.trees.tree.unique().numel()))
        yield batch


def train(
    bench: Bench,
    trained: nn.Module,
    source: Source,
    objective: Objective,
    steps: int,
    facts: Mapping[str, Any],
    early: Sequence[Finding] = (),
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
    companions: Mapping[str, Companion] = MappingProxyType({}),
    conclude: Callable[[], Sequence[Finding]] = list,
) -> RunSummary:
    """Create the folder, run the loop with journal, monitor and checkpoints, and write ``final/``.

    Args:
        bench: the prepared run.
        trained: the module whose parameters are updated; ``bench.model`` is (in) it and is what ``final/`` gets.
        source: where batches come from.
        objective: what they are worth.
        steps: optimiser steps.
        facts: what the manifest records beside versions and machine.
        early: findings made before the first step.
        evaluate: held-out evaluation.
        companions: see every step, and are saved with the run.
        conclude: what is left to do with the trained model before it is saved; returns the findings of that.
    """
    source = Accompanied(source, companions) if companions else source
    config, folder = bench.config, bench.folder
    masters = MasterWeights(trained)
    optimizer, scheduler = make_optimizer(masters.masters, config.optim, steps)
    state = TrainState(trained, optimizer, scheduler, masters)
    facts = {"start": bench.start, **facts}
    seal = None
    if config.run.resume:
        _require_same_inputs(folder / "manifest.json", facts)
        seal = _restore(folder / "checkpoints", state, source)
    create_run(folder, dump(config.model_copy(update={"run": config.run.model_copy(update={"resume": False})})))
    write_manifest(folder, {**_manner(bench, masters), **facts})
    plan = Plan(
        steps=steps,
        seed=config.run.seed,
        max_grad_norm=config.optim.max_grad_norm,
        evaluate=evaluate,
        eval_every=config.run.eval_every,
        save=lambda step, saved: _keep_one(folder / "checkpoints", step, saved),
        save_every=config.run.save_every,
    )
    metrics, findings = Journal(folder / "metrics.jsonl"), Journal(folder / "findings.jsonl")
    with _trackers(bench, state.step, metrics, findings) as trackers:
        gate = set_gate(config, steps, bench.voice.say, metrics, FindingsSink(findings, trackers), early)
        gate.monitor.tell(resumed_findings(seal, state, source))
        gate.check(state.step)
        bench.voice.begin(steps, state.step)
        journal = lambda report: metrics.append({"step": report.step, **report.metrics})  # noqa: E731
        # Companions come first: an observer that stops the run has it saved with them up to date.
        observers = [*companions.values(), journal, trackers, bench.voice, gate]
        summary = run(state, source, objective, plan, observers)
        _end(bench, gate, conclude)
    return summary


def _end(bench: Bench, gate: Gate, conclude: Callable[[], Sequence[Finding]]) -> None:
    """Do what is left to do with the trained model, write ``final/``, and see that it is what the last step left."""
    left = fingerprint.checksums(bench.model.state_dict())
    gate.monitor.tell(conclude())
    _finish(bench)
    gate.monitor.tell(saved_findings(bench.model, bench.folder / "final", left))


def _manner(bench: Bench, masters: MasterWeights) -> dict[str, Any]:
    """What the manifest records of any run: seed, device, layout, and how many weights there are and are trained."""
    return {
        "seed": bench.config.run.seed,
        "device": str(bench.device),
        "layout": bench.batching.layout,
        "products": products.library() if bench.device.type == "cpu" else "torch",
        "parameters": sum(parameter.numel() for parameter in bench.model.parameters()),
        "trainable": sum(parameter.numel() for parameter in masters.weights),
    }


def _trackers(bench: Bench, step: int, metrics: Journal, findings: Journal) -> Trackers:
    """Cut the journals back to the step that the run goes on after, and open the trackers that follow them."""
    told = max((row["step"] for row in metrics.rows()), default=0)
    for journal in (metrics, findings):
        journal.keep_through(step)
    config = bench.config
    run = Tracked(bench.folder, config.run.project, config.model_dump(mode="json"), step, told)
    trackers = Trackers(config.run.trackers, run, bench.voice.say)
    trackers.replay(metrics.rows(), findings.rows())
    return trackers


def _finish(bench: Bench) -> None:
    """Write ``final/``, complete or absent, and drop what only a resumed run would need."""
    final, aside = bench.folder / "final", bench.folder / "final.partial"
    for old in (aside, final):
        shutil.rmtree(old, ignore_errors=True)
    hub.save(bench.model, bench.tokenizer, aside)
    if adapters.is_adapted(bench.model) and (base := _kept_base(bench.config)) is not None:
        hub.save(adapters.underlying(bench.model), bench.tokenizer, base)
        bench.voice.say(f"{base}: the model under the adapters, by which final/ is loaded; keep both")
    aside.rename(final)
    shutil.rmtree(bench.folder / "checkpoints", ignore_errors=True)


_MAY_CHANGE = re.compile(
    r"run\.(?!seed$).*|optim\.micro_batch_tokens|.*\.(path|tokenizer|validation|reference|reward|store)"
)
"""Settings that a resumed run may be given anew: where things lie and how they are run, not what they are."""


def _require_same_settings(config: RecipeConfig, started: Path) -> None:
    """Refuse to resume with settings that would make it another run."""
    before = validate(type(config), read_yaml(str(started)), str(started))
    for key in leaves(type(config)):
        old, new = (reduce(getattr, key.split("."), values) for values in (before, config))
        if old != new and not _MAY_CHANGE.fullmatch(key):
            raise UserError(f"{key}: the run was started with {old!r}, not {new!r}; resume with the settings it had")


def _require_same_inputs(manifest: Path, facts: Mapping[str, Any]) -> None:
    """Refuse to resume on other data or from other weights than the run was started with."""
    before = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    for name, value in facts.items():
        if before.get(name, value) != value:
            raise UserError(f"{manifest}: '{name}' is not what the run was started with; a resumed run needs the same")


def _restore(checkpoints: Path, state: TrainState, source: Source) -> Mapping[str, Any] | None:
    """Go back to the newest checkpoint and return its seal; without one the run starts again from its first step."""
    folder = checkpoint.latest(checkpoints)
    if folder is None:
        return None
    saved = checkpoint.load_state(folder)
    unpack_state(saved, state, source)
    return saved.get("seal")


def _keep_one(checkpoints: Path, step: int, state: Any) -> None:
    """Save a checkpoint, then drop the older ones."""
    checkpoint.save_state(checkpoints / f"step-{step}", state)
    for old in checkpoints.glob("step-*"):
        if old.name != f"step-{step}":
            shutil.rmtree(old)
