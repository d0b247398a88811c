"""One optimiser step: count the units, sum the gradients, divide once, check, clip, update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trueup.errors import RunError
from trueup.train.master import MasterWeights
from trueup.train.moves import describe_move, sample_weights
from trueup.train.protocols import Objective, Tally


@dataclass
class TrainState:
    """What an update changes: the model, the optimiser's moments, the schedule, the step count.

    ``masters``: what the optimiser updates where the model's own weights are rounded; None where it updates those.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    masters: MasterWeights | None = None
    step: int = 0


def train_step(
    state: TrainState, objective: Objective, batches: Sequence[Any], max_grad_norm: float
) -> Mapping[str, float]:
    """Make one update and return its metrics.

    Every term is divided by the count of its unit over *all* micro-batches of the step, never by a micro-batch's own:
    how the step is cut, packed or accumulated cannot change the gradient.

    Raises:
        RunError: the loss or the gradient norm is not finite; nothing has been updated.
    """
    state.model.train()
    _clear(state)  # a step that failed leaves its gradients behind
    counts = count_units(objective, batches)
    sums = _Sums()
    for batch in batches:
        tally = objective(state.model, batch)
        step_loss(tally, counts).backward()
        if state.masters is not None:
            state.masters.collect()
        sums.add(tally)
    metrics = sums.means(counts)
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm, foreach=True))
    _require_finite(state.step, metrics["loss"], norm)
    moving, rate = sample_weights(parameters), float(state.scheduler.get_last_lr()[0])
    state.optimizer.step()
    moved = {} if moving is None else describe_move(moving, rate)
    if state.masters is not None:
        state.masters.spread()
    state.scheduler.step()
    _clear(state)
    state.step += 1
    return {**metrics, "grad_norm": norm, "learning_rate": rate, **moved}


def _clear(state: TrainState) -> None:
    state.optimizer.zero_grad(set_to_none=True)
    state.model.zero_grad(set_to_none=True)


@torch.no_grad()
def evaluate_objective(model: nn.Module, objective: Objective, batches: Iterable[Any]) -> Mapping[str, float]:
    """Return the objective's loss and metrics over held-out batches, weighted by true counts, without an update."""
    was_training = model.training
    model.eval()
    counts: dict[str, float] = {}
    sums = _Sums()
    for batch in batches:
        counts = _more(counts, objective.units(batch))
        sums.add(objective(model, batch))
    model.train(was_training)
    return sums.means(counts)


def count_units(objective: Objective, batches: Iterable[Any]) -> Mapping[str, float]:
    """Sum each unit over the micro-batches."""
    counts: dict[str, float] = {}
    for batch in batches:
        counts = _more(counts, objective.units(batch))
    return counts


def _more(counts: Mapping[str, float], units: Mapping[str, float]) -> dict[str, float]:
    return {unit: counts.get(unit, 0.0) + units.get(unit, 0.0) for unit in {**counts, **units}}


def step_loss(tally: Tally, counts: Mapping[str, float]) -> torch.Tensor:
    """Return a micro-batch's share in the loss of a step with these counts of units: a scalar, to be summed."""
    parts = [term.total * (term.weight / counts[term.unit]) for term in tally.terms.values() if counts[term.unit]]
    return torch.stack(parts).sum()


def _require_finite(step: int, loss: float, norm: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise RunError(
            f"step {step + 1}: loss {loss}, gradient norm {norm}: not finite, so the update was not made. "
            "Lower optim.learning_rate, or look at this step's batch"
        )


class _Sums:
    """Sums of terms and metrics, and largest values, over the micro-batches of a step."""

    def __init__(self) -> None:
        self.terms: dict[str, tuple[float, str, float]] = {}
        self.metrics: dict[str, tuple[float, float]] = {}
        self.peaks: dict[str, float] = {}

    def add(self, tally: Tally) -> None:
        for name, term in tally.terms.items():
            before = self.terms.get(name, (0.0, term.unit, term.weight))[0]
            self.terms[name] = (before + float(term.total.detach()), term.unit, term.weight)
        for name, (total, weight) in tally.metrics.items():
            sum_, count = self.metrics.get(name, (0.0, 0.0))
            self.metrics[name] = (sum_ + float(total), count + float(weight))
        for name, value in tally.peaks.items():
            self.peaks[name] = max(value, self.peaks.get(name, value))

    def means(self, counts: Mapping[str, float]) -> dict[str, float]:
        """The loss, each of its terms if there are several, and every metric that saw anything."""
        parts = {name: total / counts[unit] for name, (total, unit, _) in self.terms.items() if counts[unit]}
        loss = sum(self.terms[name][2] * value for name, value in parts.items())
        named = {f"loss/{name}": value for name, value in parts.items()} if len(parts) > 1 else {}
        means = {name: total / weight for name, (total, weight) in self.metrics.items() if weight}
        return {"loss": float(loss), **named, **means, **self.peaks}
