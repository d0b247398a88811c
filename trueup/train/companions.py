"""What follows a run beside its model and data, and must be saved with it: a running mean, a reference that moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trueup.errors import UserError
from trueup.train.protocols import Source, State, StepReport, Work


class Companion(Protocol):
    """Sees every finished step, and changes only then: within a step it is a constant."""

    def __call__(self, report: StepReport) -> None:
        """See a finished step."""
        ...

    def state(self) -> State:
        """What must be saved so that ``restore`` continues bit for bit."""
        ...

    def restore(self, state: State) -> None:
        """Continue from a saved state."""
        ...


@dataclass
class Accompanied:
    """A source whose saved state holds that of the run's companions."""

    source: Source
    companions: Mapping[str, Companion]

    def draw(self, model: nn.Module, step: int) -> Work:
        """What the source draws."""
        return self.source.draw(model, step)

    def state(self) -> State:
        """The source's state and every companion's."""
        return {"data": self.source.state(), **{name: c.state() for name, c in self.companions.items()}}

    def restore(self, state: State) -> None:
        """Continue from a saved state."""
        self.source.restore(state["data"])
        for name, companion in self.companions.items():
            companion.restore(state[name])


class RunningMean:
    """The mean over all finished steps of metrics that are means over a step; 0 before the first.

    Every step weighs the same; one that had nothing to measure, as a rollout of ties leaves none, does not count. The
    cut of a step into micro-batches cannot show in it, as it could in a mean that moved within the step.
    """

    def __init__(self, *metrics: str) -> None:
        """Take the mean of these metrics, which weigh the same."""
        self._metrics = metrics
        self._total, self._steps = 0.0, 0

    @property
    def value(self) -> float:
        """The mean so far."""
        return self._total / max(1, self._steps)

    def __call__(self, report: StepReport) -> None:
        """Add a finished step."""
        if not all(name in report.metrics for name in self._metrics):
            return
        self._total += sum(report.metrics[name] for name in self._metrics) / len(self._metrics)
        self._steps += 1

    def state(self) -> State:
        """The sum and the number of steps."""
        return {"total": self._total, "steps": self._steps}

    def restore(self, state: State) -> None:
        """Continue from a saved state."""
        self._total, self._steps = state["total"], state["steps"]


class MovingReference:
    """A reference that moves towards the policy: π_ref ← α π + (1 - α) π_ref after every so many steps (in weights).

    TR-DPO: Gorbatovski et al. 2024, arXiv 2404.09656 (α = 1 is its hard update). Weights are mixed in
    float32.
    """

    def __init__(self, reference: nn.Module, policy: nn.Module, every: int, mixup: float) -> None:
        """Move ``reference``, in place.

        Args:
            reference: of the policy's shape.
            policy: what is trained.
            every: steps between two moves.
            mixup: α, above 0 and at most 1.
        """
        self._reference, self._policy = reference, policy
        self._every, self._mixup = every, mixup
        shapes = [{name: p.shape for name, p in model.named_parameters()} for model in (reference, policy)]
        if shapes[0] != shapes[1]:
            raise UserError("preference.sync_every mixes weights, so preference.reference must have the policy's shape")

    @torch.no_grad()
    def __call__(self, report: StepReport) -> None:
        """Move the reference if this was a step to move after."""
        if report.step % self._every == 0:
            for old, new in self._pairs():
                old.copy_(torch.lerp(old.float(), new.float(), self._mixup))

    def state(self) -> State:
        """The reference's weights."""
        return {"weights": [old.detach() for old, _ in self._pairs()]}

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Continue from saved weights."""
        for (old, _), saved in zip(self._pairs(), state["weights"], strict=True):
            old.copy_(saved)

    def _pairs(self) -> Iterator[tuple[Any, Tensor]]:
        return zip(self._reference.parameters(), self._policy.parameters(), strict=True)
