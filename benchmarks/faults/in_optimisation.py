"""Faults of the optimiser and of numbers: rates, schedules, precision, clipping, what is trained at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from faults.fault import Fault
from faults.stage import Stage
from trueup.losses.pairs import PairLoss
from trueup.models import forward, hub
from trueup.train import optim
from trueup.train.objectives.sft import SftObjective

RATE = "optim.learning_rate"


def faster(stage: Stage, times: float) -> None:
    """Multiply the learning rate."""
    stage.set(RATE, stage.get(RATE) * times)
    stage.set("optim.warmup", 0.0)


def _optimiser(change: Callable[[Any, Any, float], Any]) -> Callable[[Stage, float], None]:
    """A fault of optimiser and schedule, which ``change`` alters in place."""

    def inject(stage: Stage, strength: float) -> None:
        def wrap(old: Any) -> Any:
            def made(*arguments: Any) -> Any:
                optimizer, scheduler = old(*arguments)
                change(optimizer, scheduler, strength)
                return optimizer, scheduler

            return made

        stage.wrap(optim, "make_optimizer", wrap)

    return inject


def _twice(optimizer: Any, scheduler: Any, _: float) -> None:
    once = scheduler.step

    def step() -> None:
        once()
        once()

    scheduler.step = step


def _epsilon(optimizer: Any, scheduler: Any, value: float) -> None:
    for group in optimizer.param_groups:
        group["eps"] = value


def _after(act: Callable[[Any], None]) -> Callable[[Any, Any, float], None]:
    """Do something after each update."""

    def change(optimizer: Any, scheduler: Any, _: float) -> None:
        optimizer.register_step_post_hook(lambda own, *rest: act(own))

    return change


@torch.no_grad()
def _round(optimizer: Any) -> None:
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.copy_(weight.bfloat16().float())


def _forget(optimizer: Any) -> None:
    optimizer.state.clear()


def stale_parameters(stage: Stage, _: float) -> None:
    """The optimiser was built over tensors that have been replaced since: it updates copies."""

    def wrap(old: Any) -> Any:
        def made(weights: Any, *rest: Any) -> Any:
            copies = [nn.Parameter(weight.detach().clone()) for weight in weights]
            pairs = list(zip(weights, copies, strict=True))
            optimizer, scheduler = old(copies, *rest)

            def carry(*_: Any) -> None:
                for weight, copy in pairs:
                    copy.grad = weight.grad

            optimizer.register_step_pre_hook(carry)
            return optimizer, scheduler

        return made

    stage.wrap(optim, "make_optimizer", wrap)


def _loaded(change: Callable[[Any, float], None]) -> Callable[[Stage, float], None]:
    """A fault of the model as it is loaded for training."""

    def inject(stage: Stage, strength: float) -> None:
        def wrap(old: Any) -> Any:
            def load(*arguments: Any, **options: Any) -> Any:
                model = old(*arguments, **options)
                change(model, strength)
                return model

            return load

        for name in ("load_causal", "load_scorer") if stage.method == "reward" else ("load_causal",):
            stage.wrap(hub, name, wrap)

    return inject


def _frozen(model: Any, share: float) -> None:
    """Freeze the first tensors."""
    weights = list(model.parameters())
    for weight in weights[: round(share * len(weights))]:
        weight.requires_grad_(False)


def _cut_gradient(model: Any, _: float) -> None:
    model.base_model.embed_tokens.register_forward_hook(lambda module, given, out: out.detach().requires_grad_(True))
    for layer in model.base_model.layers[:1]:
        layer.register_forward_hook(lambda module, given, out: _detached(out))


def _detached(out: Any) -> Any:
    return (out[0].detach(), *out[1:]) if isinstance(out, tuple) else out.detach()


def _dropout(model: Any, share: float) -> None:
    for layer in model.base_model.layers:
        layer.mlp.register_forward_hook(lambda m, given, out: functional.dropout(out, share, m.training))


def _always_dropout(model: Any, share: float) -> None:
    for layer in model.base_model.layers:
        layer.mlp.register_forward_hook(lambda m, given, out: functional.dropout(out, share, True))


def exploding_sample(stage: Stage, times: float) -> None:
    """The first pair of every micro-batch counts a thousand times."""

    def wrap(old: Any) -> Any:
        def values(self: Any, pairs: Any, *rest: Any) -> Any:
            out = old(self, pairs, *rest)
            scale = torch.ones(len(pairs.chosen))
            scale[0] = times
            return {name: value * scale for name, value in out.items()}

        return values

    stage.wrap(PairLoss, "values", wrap)


def nan_to_zero(stage: Stage, share: float) -> None:
    """A loss that is not a number becomes 0, and this share of the steps has one."""
    calls = [0]

    def wrap(old: Any) -> Any:
        def call(self: Any, model: Any, batch: Any) -> Any:
            tally = old(self, model, batch)
            calls[0] += 1
            if (calls[0] * share) % 1 >= share:
                return tally
            terms = {name: replace(term, total=term.total * 0.0) for name, term in tally.terms.items()}
            return replace(tally, terms=terms)

        return call

    stage.wrap(SftObjective, "__call__", wrap)


def detached_scores(stage: Stage, _: float) -> None:
    """Log-probabilities pass through a constant: values are right, no gradient comes back."""

    def wrap(old: Any) -> Any:
        def scores(*arguments: Any, **options: Any) -> Any:
            out = old(*arguments, **options)
            return replace(out, logps=out.logps.detach().requires_grad_(torch.is_grad_enabled()))

        return scores

    stage.wrap(forward, "token_scores", wrap)


def steps(stage: Stage, times: float) -> None:
    """Train for longer than was meant."""
    stage.set("optim.steps", round(stage.get("optim.steps") * times))


FAULTS = (
    Fault("F42", "learning rate too high", ("dpo", "grpo", "sft"), "optimisation", faster, (10.0, 100.0), "times"),
    Fault("F44", "scheduler called twice", ("dpo", "ppo"), "optimisation", _optimiser(_twice)),
    Fault(
        "F45",
        "weights rounded to bfloat16 after each step",
        ("dpo",),
        "numbers",
        _optimiser(_after(_round)),
        also=("optimisation",),
        settings={RATE: 1e-4},
    ),
    Fault(
        "F46",
        "one sample counts for all",
        ("dpo",),
        "optimisation",
        exploding_sample,
        (1000.0,),
        "times",
        also=("objective",),
    ),
    Fault(
        "F47",
        "clipped to nothing",
        ("dpo",),
        "optimisation",
        lambda stage, norm: stage.set("optim.max_grad_norm", norm),
        (1e-3, 1e-9),
        "norm",
    ),
    Fault("F48", "Adam's epsilon", ("dpo", "sft"), "optimisation", _optimiser(_epsilon), (1e-3, 1.0), "epsilon"),
    Fault("F49", "everything frozen", ("dpo",), "optimisation", _loaded(_frozen)),
    Fault("F49", "most tensors frozen", ("sft", "dpo"), "optimisation", _loaded(_frozen), (0.9,), "share"),
    Fault("F50", "gradient cut at a layer", ("dpo", "sft"), "optimisation", _loaded(_cut_gradient)),
    Fault("F51", "log-probabilities detached", ("dpo", "grpo"), "optimisation", detached_scores, also=("objective",)),
    Fault("F52", "optimiser has other tensors", ("dpo", "sft"), "optimisation", stale_parameters),
    Fault(
        "F53",
        "not a number becomes 0",
        ("sft",),
        "numbers",
        nan_to_zero,
        (0.1, 0.6),
        "share of steps",
        also=("optimisation",),
    ),
    Fault("F34", "dropout in training", ("dpo", "grpo"), "log-probabilities", _loaded(_dropout), (0.1, 0.3), "dropout"),
    Fault(
        "F55",
        "dropout while sampling too",
        ("grpo",),
        "rollout",
        _loaded(_always_dropout),
        (0.1,),
        "dropout",
        also=("log-probabilities", "reference"),
    ),
    Fault("F126b", "moments forgotten at each step", ("dpo",), "optimisation", _optimiser(_after(_forget))),
)
