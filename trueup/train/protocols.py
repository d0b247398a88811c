"""The two small protocols that every method is made of, and what passes between them and the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

State = dict[str, Any]
"""What a source saves: nested dicts and lists of tensors, numbers and strings."""


@dataclass(frozen=True)
class Term:
    """A summed part of the loss and the unit its mean is over.

    Attributes:
        total: scalar tensor, the sum over the micro-batch.
        unit: a key of ``Objective.units``: the step divides by that count over the whole step.
        weight: coefficient in the loss.
    """

    total: Tensor
    unit: str
    weight: float = 1.0


@dataclass(frozen=True)
class Tally:
    """What an objective makes of a micro-batch.

    Attributes:
        terms: name -> summed term; the loss is the weighted sum of their means.
        metrics: name -> (sum, weight); the step reports sum / weight over the whole step.
        peaks: name -> value; the step reports the largest.
    """

    terms: Mapping[str, Term]
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    peaks: Mapping[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """Turns a micro-batch into summed terms."""

    def units(self, batch: Any) -> Mapping[str, float]:
        """Count the units of a micro-batch without a forward pass."""
        ...

    def __call__(self, model: nn.Module, batch: Any) -> Tally:
        """Run the forward pass and return the sums."""
        ...


@dataclass(frozen=True)
class Work:
    """One optimiser step's worth of micro-batches, and what the source measured while making them.

    Attributes:
        batches: the micro-batches.
        metrics: numbers for this step's journal line (reward, completions/..., kl/...), possibly none.
        consumed: running totals for budgets: labels, prompts, sampled tokens.
    """

    batches: Sequence[Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    consumed: Mapping[str, float] = field(default_factory=dict)


class Source(Protocol):
    """Where batches come from: a data set, or rollouts of the policy. The loop cannot tell them apart."""

    def draw(self, model: nn.Module, step: int) -> Work:
        """Return the micro-batches of optimiser step ``step`` (0-based)."""
        ...

    def state(self) -> State:
        """What must be saved so that ``restore`` continues bit for bit."""
        ...

    def restore(self, state: State) -> None:
        """Continue from a saved state."""
        ...


@dataclass(frozen=True)
class StepReport:
    """What happened in one optimiser step; ``metrics`` has the names of docs/metrics.md."""

    step: int
    metrics: Mapping[str, float]


class Observer(Protocol):
    """Watches a run: journal, progress display, health monitor."""

    def __call__(self, report: StepReport) -> None:
        """See a finished step. May raise a ``TrueupError`` to stop the run at a checkpoint."""
        ...
