"""The one loop: draw work, make a step, tell the observers, evaluate, save, stop where it can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from trueup.errors import GateError, Interrupted, RunError
from trueup.runtime.clock import seconds
from trueup.runtime.seeding import seed_globally
from trueup.runtime.signals import on_stop
from trueup.train.protocols import Objective, Observer, Source, State, StepReport
from trueup.train.seal import rows_ahead, seal_of, trained_state
from trueup.train.step import TrainState, train_step


@dataclass(frozen=True)
class Plan:
    """How long to run, and what to do on the way.

    Attributes:
        steps: total optimiser steps, those before a resume included.
        seed: seeds torch's global generator afresh at every step (dropout), so a resumed run repeats it.
        max_grad_norm: gradient clipping.
        evaluate: called every ``eval_every`` steps and after the last; its metrics join the step's.
        save: called with everything needed to resume: every ``save_every`` steps and when the run is stopped.
    """

    steps: int
    seed: int
    max_grad_norm: float = 1.0
    evaluate: Callable[[int], Mapping[str, float]] | None = None
    eval_every: int = 50
    save: Callable[[int, State], None] | None = None
    save_every: int | None = None


@dataclass(frozen=True)
class RunSummary:
    """What a run did: its steps, the last step's metrics, the totals it consumed, the seconds it took."""

    steps: int
    metrics: Mapping[str, float]
    consumed: Mapping[str, float]
    seconds: float


def run(
    state: TrainState, source: Source, objective: Objective, plan: Plan, observers: Sequence[Observer] = ()
) -> RunSummary:
    """Train until ``plan.steps``.

    Ctrl-C or SIGTERM, and an observer that raises ``GateError``, end the run after the current step with a checkpoint.

    Raises:
        Interrupted: stopped by the user; a checkpoint was saved if the plan can save.
        GateError: an observer stopped the run.
        RunError: numbers were not finite.
    """
    started, consumed, metrics = seconds(), {}, {}
    with _stop_flag() as stopped:
        while state.step < plan.steps:
            began = seconds()
            seed_globally(plan.seed, "step", state.step)
            work = source.draw(state.model, state.step)
            metrics = {**train_step(state, objective, work.batches, plan.max_grad_norm), **work.metrics}
            consumed = work.consumed
            metrics |= {**consumed, "step_time": seconds() - began}
            if plan.evaluate and (state.step % plan.eval_every == 0 or state.step == plan.steps):
                metrics |= plan.evaluate(state.step)
            _tell(observers, StepReport(state.step, metrics), lambda: _save(plan, state, source))
            if state.step == plan.steps:
                break
            stopping = stopped.is_set()
            if stopping or (plan.save_every and state.step % plan.save_every == 0):
                _save(plan, state, source)
            if stopping:
                raise Interrupted(f"stopped after step {state.step} of {plan.steps}; --resume goes on from there")
    return RunSummary(state.step, metrics, consumed, seconds() - started)


def _tell(observers: Sequence[Observer], report: StepReport, save: Callable[[], None]) -> None:
    try:
        for observer in observers:
            observer(report)
    except GateError:
        save()
        raise


def _save(plan: Plan, state: TrainState, source: Source) -> None:
    if plan.save:
        plan.save(state.step, pack_state(state, source))


def pack_state(state: TrainState, source: Source) -> State:
    """Everything a resumed run needs, as a nest of plain values and tensors."""
    return {
        "step": state.step,
        "model": trained_state(state.model),
        "masters": state.masters.state() if state.masters else [],
        "optimizer": state.optimizer.state_dict(),
        "scheduler": {"last_epoch": state.scheduler.last_epoch},
        "source": source.state(),
        "seal": asdict(seal_of(state, source, rows_ahead(source, state.step))),
    }


def unpack_state(saved: State, state: TrainState, source: Source) -> None:
    """Put a saved state back into freshly built objects."""
    if saved["model"].keys() != trained_state(state.model).keys():
        raise RunError("the checkpoint's weights are not those that this run trains")
    state.model.load_state_dict(saved["model"], strict=False)
    if state.masters is not None:
        state.masters.restore(saved["masters"])
    optimizer = saved["optimizer"]
    # JSON keys are strings; the optimiser numbers its parameters.
    optimizer["state"] = {int(key): value for key, value in optimizer["state"].items()}
    state.optimizer.load_state_dict(optimizer)
    state.step = saved["step"]
    _wind(state.scheduler, saved["scheduler"]["last_epoch"])
    source.restore(saved["source"])


def _wind(scheduler: Any, epoch: int) -> None:
    """Set a LambdaLR to an epoch and its optimiser to that epoch's rate."""
    scheduler.last_epoch = epoch
    rates = [base * shape(epoch) for base, shape in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


@contextmanager
def _stop_flag() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a flag; a second Ctrl-C acts at once."""
    flag = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if flag.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.set()

    with on_stop(handle):
        yield flag
