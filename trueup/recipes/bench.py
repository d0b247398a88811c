"""What every recipe sets up before it differs from the others: model, tokenizer, folder, journal, checkpoints."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from trueup.config.load import dump, leaves, read_yaml, validate
from trueup.config.schema import RecipeConfig
from trueup.data.batching import Batching
from trueup.data.encode import Bounds, EncodedSet
from trueup.data.template import Encoder, make_encoder
from trueup.data.trees import Layout
from trueup.errors import RunError, UserError
from trueup.health.findings import Finding
from trueup.health.monitor import Monitor
from trueup.models import hub
from trueup.preflight.layout import prove_layout
from trueup.runtime import checkpoint, fingerprint
from trueup.runtime.device import prepare
from trueup.runtime.folder import check_run, create_run, write_manifest
from trueup.runtime.journal import Journal
from trueup.runtime.seeding import seed_globally
from trueup.train.loop import Plan, RunSummary, run, unpack_state
from trueup.train.optim import make_optimizer
from trueup.train.protocols import Objective, Source, StepReport
from trueup.train.step import TrainState, evaluate_objective


class Voice(Protocol):
    """How a recipe speaks to whoever started it: a terminal, a study, a test."""

    def say(self, text: str) -> None:
        """Tell one line."""
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

    def begin(self, steps: int, done: int) -> None:
        """Drop the announcement."""

    def __call__(self, report: StepReport) -> None:
        """Drop the report."""


@dataclass
class Bench:
    """A prepared run: everything but the data and the method."""

    config: RecipeConfig
    folder: Path
    voice: Voice
    device: torch.device
    tokenizer: Any
    encoder: Encoder
    model: Any
    batching: Batching

    def bounds(self, extra: int = 0) -> Bounds:
        """Length limits of this run's data."""
        return Bounds(hub.context_length(self.model), self.config.data.max_length, extra)

    def steps(self, data: EncodedSet) -> int:
        """Optimiser steps: as configured, else one pass over the data."""
        return self.config.optim.steps or math.ceil(len(data) / self.config.optim.batch_size)


def set_up(config: RecipeConfig, voice: Voice, load: Callable[[RecipeConfig, Any], Any]) -> Bench:
    """Check the run folder, load tokenizer and model (``load``), and return the bench. Nothing is written yet."""
    folder = check_run(config.run.out, config.run.resume)
    if config.run.resume:
        _require_same_settings(config, folder / "config.yaml")
    device = prepare(config.run.device, config.run.threads)
    tokenizer = hub.load_tokenizer(config.model.tokenizer or config.model.path or "")
    seed_globally(config.run.seed, "weights")
    model = load(config, tokenizer).to(device)
    layout: Layout = "plain" if config.model.layout == "plain" else "shared"
    batching = Batching(layout, config.optim.micro_batch_tokens, device)
    return Bench(config, folder, voice, device, tokenizer, make_encoder(tokenizer), model, batching)


def load_policy(config: RecipeConfig, tokenizer: Any) -> Any:
    """The causal model a recipe starts from: a folder, a .gguf file, or a preset with fresh weights."""
    if config.model.path is not None:
        return hub.load_causal(config.model.path, config.model.dtype)
    assert config.model.preset is not None
    return hub.new_causal(config.model.preset, len(tokenizer), tokenizer, config.model.context)


def frozen_reference(bench: Bench, path: str | None) -> Any:
    """The frozen reference: a model of its own, or a copy of the policy before its first update.

    A resumed run builds it from the same start, never from the resumed weights.
    """
    if path is None:
        model = copy.deepcopy(bench.model)
    else:
        model = hub.load_causal(path, bench.config.model.dtype)
        require_same_vocabulary("reference", path, bench.tokenizer)
    return model.to(bench.device).eval().requires_grad_(False)


def choose_layout(bench: Bench, data: EncodedSet) -> None:
    """With ``layout: auto``, trust the shared layout only if it equals the plain one on the first trees."""
    if bench.config.model.layout == "auto":
        proof = prove_layout(bench.model, data.trees, bench.batching)
        bench.voice.say(proof.message)
        bench.batching = Batching(proof.layout, bench.batching.max_tokens, bench.device)


def held_out(
    bench: Bench, objective: Objective, data: EncodedSet | None
) -> Callable[[int], Mapping[str, float]] | None:
    """An evaluation of the objective on held-out trees, its metrics prefixed with ``eval/``."""
    if data is None:
        return None
    trees = data.trees

    def evaluate(step: int) -> Mapping[str, float]:
        batches = [bench.batching.collate([trees[i] for i in part]) for part in bench.batching.cut(trees)]
        metrics = evaluate_objective(bench.model, objective, batches)
        return {f"eval/{name}": value for name, value in metrics.items()}

    return evaluate


def train(
    bench: Bench,
    trained: nn.Module,
    source: Source,
    objective: Objective,
    steps: int,
    facts: Mapping[str, Any],
    early: Sequence[Finding] = (),
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
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
    """
    config, folder = bench.config, bench.folder
    optimizer, scheduler = make_optimizer(trained, config.optim, steps)
    state = TrainState(trained, optimizer, scheduler)
    if config.run.resume:
        _require_same_inputs(folder / "manifest.json", facts)
        _restore(folder / "checkpoints", state, source)
    create_run(folder, dump(config.model_copy(update={"run": config.run.model_copy(update={"resume": False})})))
    write_manifest(
        folder,
        {
            "seed": config.run.seed,
            "device": str(bench.device),
            "layout": bench.batching.layout,
            "parameters": _size(bench.model),
            **facts,
        },
    )
    metrics, findings = Journal(folder / "metrics.jsonl"), Journal(folder / "findings.jsonl")
    for journal in (metrics, findings):
        journal.keep_through(state.step)
    monitor = _monitor(bench.voice, metrics, findings, early)
    bench.voice.begin(steps, state.step)
    plan = Plan(
        steps=steps,
        seed=config.run.seed,
        max_grad_norm=config.optim.max_grad_norm,
        evaluate=evaluate,
        eval_every=config.run.eval_every,
        save=lambda step, saved: _keep_one(folder / "checkpoints", step, saved),
        save_every=config.run.save_every,
    )
    observers = [lambda report: metrics.append({"step": report.step, **report.metrics}), monitor, bench.voice]
    summary = run(state, source, objective, plan, observers)
    monitor.close()
    _finish(bench)
    return summary


def _monitor(voice: Voice, metrics: Journal, findings: Journal, early: Sequence[Finding]) -> Monitor:
    """The health monitor, with the series and the findings of the steps before a resume."""
    recorded = {row["rule"] for row in findings.rows()}
    monitor = Monitor(findings, voice.say, [finding for finding in early if finding.rule not in recorded])
    monitor.replay(metrics.rows(), recorded)
    return monitor


def _finish(bench: Bench) -> None:
    """Write ``final/``, complete or absent, and drop what only a resumed run would need."""
    final, aside = bench.folder / "final", bench.folder / "final.partial"
    for old in (aside, final):
        shutil.rmtree(old, ignore_errors=True)
    hub.save(bench.model, bench.tokenizer, aside)
    aside.rename(final)
    shutil.rmtree(bench.folder / "checkpoints", ignore_errors=True)


_MAY_CHANGE = re.compile(r"run\.(?!seed$).*|optim\.micro_batch_tokens|.*\.(path|tokenizer|validation|reference|reward)")
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


def _restore(checkpoints: Path, state: TrainState, source: Source) -> None:
    """Go back to the newest checkpoint; without one the run starts again from its first step."""
    saved = checkpoint.latest(checkpoints)
    if saved is not None:
        unpack_state(checkpoint.load_state(saved), state, source)


def _keep_one(checkpoints: Path, step: int, state: Any) -> None:
    """Save a checkpoint, then drop the older ones."""
    checkpoint.save_state(checkpoints / f"step-{step}", state)
    for old in checkpoints.glob("step-*"):
        if old.name != f"step-{step}":
            shutil.rmtree(old)


def require_same_vocabulary(what: str, path: str, tokenizer: Any) -> None:
    """Refuse a second model that reads token ids otherwise than the policy: it would score noise without any sign."""
    if hub.load_tokenizer(path).get_vocab() != tokenizer.get_vocab():
        raise UserError(f"{what}: {path} has another vocabulary than the policy; both need the same tokenizer")


def require_unchanged(reference: nn.Module, before: str) -> None:
    """Fail if the frozen reference's weights are not what they were at the start."""
    if fingerprint.of_weights(reference) != before:
        raise RunError("the reference's weights changed during training; every margin and KL of this run is void")


def _size(model: nn.Module) -> int:
    """Parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
