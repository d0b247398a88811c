"""Faults of stopping and going on, and of what is saved at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from faults.fault import Fault
from faults.stage import Stage
from trueup.models import hub
from trueup.recipes import reference as recipe_reference
from trueup.runtime import checkpoint
from trueup.train import loop
from trueup.train.sources import DataSource


def _resumed(change: Any) -> Any:
    """A run that is stopped and resumed; ``change`` is made between the two parts."""

    def inject(stage: Stage, strength: float) -> None:
        stage.resumed = True
        stage.between = lambda: change(stage)

    return inject


def _unpacked(change: Any) -> Any:
    """A fault in restoring: (saved state) -> what is restored of it."""

    def between(stage: Stage) -> None:
        stage.wrap(
            loop, "unpack_state", lambda old: lambda saved, state, source: old(change(saved, state), state, source)
        )

    return _resumed(between)


def _schedule(saved: Any, state: Any) -> Any:
    return {**saved, "scheduler": {"last_epoch": 0}}


def _moments(saved: Any, state: Any) -> Any:
    return {**saved, "optimizer": {**saved["optimizer"], "state": {}}}


def _weights(saved: Any, state: Any) -> Any:
    own = loop.pack_state(state, _Empty())
    return {**saved, "model": own["model"], "masters": own["masters"]}


class _Empty:
    """A source without a state."""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}


def _data_again(stage: Stage) -> None:
    """The order of the data begins anew."""
    first: list[int] = []

    def wrap(old: Any) -> Any:
        def draw(self: Any, model: Any, step: int) -> Any:
            first[:] = first or [step]
            return old(self, model, step - first[0])

        return draw

    stage.wrap(DataSource, "draw", wrap)


def _moved_reference(stage: Stage) -> None:
    """The reference is built from the weights at the checkpoint."""

    def wrap(old: Any) -> Any:
        def made(bench: Any, path: str | None) -> Any:
            model = old(bench, path)
            folder = checkpoint.latest(Path(bench.config.run.out) / "checkpoints")
            assert folder is not None
            model.load_state_dict(checkpoint.load_state(folder)["model"], strict=False)
            return model

        return made

    stage.wrap(recipe_reference, "frozen_reference", wrap)


def untrained(stage: Stage, _: float) -> None:
    """What is saved is the model that training began with."""
    other = str(stage.lab / ("half" if stage.method == "sft" else "start"))

    def wrap(old: Any) -> Any:
        return lambda model, tokenizer, folder: old(hub.load_causal(other), tokenizer, folder)

    stage.wrap(hub, "save", wrap)


def quantised(stage: Stage, levels: float) -> None:
    """What is saved is rounded to a few levels."""

    def wrap(old: Any) -> Any:
        def save(model: Any, tokenizer: Any, folder: Path) -> None:
            with torch.no_grad():
                for weight in model.parameters():
                    scale = weight.abs().max() / levels
                    weight.copy_((weight / scale).round() * scale)
            old(model, tokenizer, folder)

        return save

    stage.wrap(hub, "save", wrap)


FAULTS = (
    Fault("F126", "schedule begins anew at resume", ("dpo", "sft"), "optimisation", _unpacked(_schedule)),
    Fault("F127", "data begin anew at resume", ("sft",), "data", _resumed(_data_again), invalid="rows are seen twice"),
    Fault("F128", "reference from the checkpoint", ("grpo",), "reference", _resumed(_moved_reference)),
    Fault("F132", "moments lost at resume", ("dpo",), "optimisation", _unpacked(_moments)),
    Fault("F130", "weights lost at resume", ("dpo", "sft"), "optimisation", _unpacked(_weights), also=("reference",)),
    Fault("F130", "checkpoint of the start", ("sft", "dpo"), "optimisation", untrained),
    Fault("F131", "checkpoint rounded", ("dpo",), "numbers", quantised, (4.0,), "levels", also=("optimisation",)),
)
