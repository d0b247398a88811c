"""A KL coefficient that follows a target."""

from __future__ import annotations

from trueup.train.protocols import State, StepReport

GAIN, MOST = 0.1, 0.2
"""The coefficient moves by ``GAIN`` times the relative error, which counts up to ``MOST`` (Ziegler et al. 2019)."""


class KlControl:
    """A KL coefficient β, moved after every rollout so that the KL divergence of a response comes to a target.

    ``β ← β (1 + 0.1 e)`` with ``e`` = KL/target - 1, held within ±0.2: at most 2 % a rollout. Ziegler et al. 2019,
    arXiv:1909.08593, section 2.2. The KL divergence is the rollout's mean of k1 summed over a response, in nats.
    """

    def __init__(self, start: float, target: float | None = None) -> None:
        """Start with a coefficient, which without a target stays."""
        self._value, self._target = start, target

    @property
    def value(self) -> float:
        """The coefficient now."""
        return self._value

    def __call__(self, report: StepReport) -> None:
        """Follow a finished step: the first one of a rollout has the rollout's KL divergence."""
        found = report.metrics.get("kl/sequence_k1")
        if found is not None and self._target is not None:
            self._value *= 1 + GAIN * max(-MOST, min(MOST, found / self._target - 1))

    def state(self) -> State:
        """The coefficient."""
        return {"value": self._value}

    def restore(self, state: State) -> None:
        """Continue from a saved state."""
        self._value = state["value"]
