"""A TRL trainer on the bench: its own rows, collator and loss, asked without leaving a trace."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from trueup.integrations.trl_rollout import rehearsed
from trueup.preflight.modes import mode
from trueup.runtime.undisturbed import undisturbed

ROWS, NEAR, FEW = 256, 16, 4
"""Rows that are read; the first of these, of which some are collated; how many at most."""

ROLLOUT = frozenset({"grpo", "rloo"})
"""Methods whose batches would have to be sampled."""

MEANS: Mapping[str, tuple[str, ...]] = {
    "dpo": ("logps/chosen", "logps/rejected"),
    "kto": ("logps/chosen", "logps/rejected"),
    "reward": ("mean_reward", "margin"),
    "sft": ("entropy",),
    "grpo": ("entropy",),
    "rloo": ("entropy",),
}
"""Method -> metrics of its trainer that say what the model makes of the rows: what forward passes are compared by."""

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
"""What rounding explains, by dtype; relative where a number is above 1."""
HALF = 5e-2
"""The same in half precision, of weights or of arithmetic."""

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Look:
    """What a trainer says of a batch: its loss, and what it would log."""

    loss: Tensor
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Bench:
    """A trainer before its first step.

    Attributes:
        trainer: TRL's.
        method: as in ``RunLog``.
        rows: the first of its data set, all columns, as the collator gets them.
        few: numbers of some, of different lengths.
    """

    trainer: Any
    method: str
    rows: Sequence[Mapping[str, Any]]
    few: Sequence[int]

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        return self.trainer.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, also where the trainer has a processor."""
        given = self.trainer.processing_class
        return getattr(given, "tokenizer", given)

    @property
    def leaves(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def tolerance(self) -> float:
        """The largest difference that rounding explains."""
        halved = self.trainer.args.bf16 or self.trainer.args.fp16
        return HALF if halved else TOLERANCE.get(next(self.model.parameters()).dtype, HALF)

    def batch(self, numbers: Sequence[int]) -> Batch:
        """These rows as the trainer would get them; of methods that sample, prompts with responses that nobody did."""
        rows = [dict(self.rows[i]) for i in numbers]
        if self.method in ROLLOUT:
            return rehearsed(self.trainer, self.tokenizer, rows)
        collate = self.trainer._get_collator_with_removed_columns(self.trainer.data_collator)
        return self.trainer._prepare_inputs(collate(rows))

    def look(self, batch: Batch, training: bool = False) -> Look:
        """Ask the trainer for its loss."""
        noted = self.trainer._metrics["train" if training else "eval"]
        noted.clear()
        with mode(self.model, training), self.trainer.compute_loss_context_manager():
            loss = self.trainer.compute_loss(self.model, dict(batch))
        return Look(loss, {name: float(values[-1]) for name, values in noted.items() if values})

    @torch.no_grad()
    def means(self, batch: Batch, training: bool = False) -> dict[str, float]:
        """The metrics of ``MEANS`` that the trainer logs for the batch, and its loss."""
        look = self.look(batch, training)
        return {name: look.metrics[name] for name in MEANS[self.method] if name in look.metrics} | {
            "loss": float(look.loss)
        }


def bench_of(trainer: Any, method: str) -> Bench:
    """Read the first rows of a trainer's data set; its data loader is not asked, so its order stays what it is."""
    rows = list(islice(iter(trainer.train_dataset), ROWS))
    order = sorted(range(min(NEAR, len(rows))), key=lambda i: _size(rows[i]))
    if method == "kto":  # both labels
        sides = [[i for i in order if bool(rows[i]["label"]) is label] for label in (True, False)]
        order = [i for pair in zip(*sides, strict=False) for i in pair] or order
    count = min(len(order), FEW, max(2, trainer.args.per_device_train_batch_size))
    few = order[:count] if method == "kto" else [order[(len(order) - 1) * k // max(1, count - 1)] for k in range(count)]
    return Bench(trainer, method, rows, few)


def _size(row: Mapping[str, Any]) -> int:
    return sum(len(value) for name, value in row.items() if name.endswith("ids") or name == "prompt")


@contextmanager
def borrowed(trainer: Any) -> Iterator[None]:
    """Give the trainer back as it was: its counters and what it has noted, modes, and the global random streams."""
    plain = (bool, int, float, str, type(None))
    kept = {name: value for name, value in vars(trainer).items() if isinstance(value, plain)}
    names, noted = set(vars(trainer)), copy.deepcopy(trainer._metrics)
    try:
        with undisturbed(), mode(trainer.model, False):
            yield
    finally:
        for name, metrics in trainer._metrics.items():
            metrics.clear()
            metrics.update(noted.get(name, {}))
        vars(trainer).update(kept)
        for name in set(vars(trainer)) - names:
            delattr(trainer, name)
