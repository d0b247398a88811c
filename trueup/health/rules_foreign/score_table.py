"""Scores of one arm, prompt by prompt, as an evaluation script dumps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean


@dataclass(frozen=True)
class ScoreTable:
    """One arm of a comparison.

    Attributes:
        arm: its name.
        scores: prompt -> scores of its draws.
        responses: prompt -> texts of its draws, where the file has them.
        printed: the mean that the file prints for the arm, and with how many decimals.
        rank: the place that the file gives the arm; 1 is best.
        protocol: what the file says of sampling: ``temperature``, ``top_k``, ``max_new_tokens``.
    """

    arm: str
    scores: Mapping[str, Sequence[float]]
    responses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    printed: tuple[float, int] | None = None
    rank: int | None = None
    protocol: Mapping[str, float] = field(default_factory=dict)

    def mean_of(self, prompt: str) -> float:
        """Mean score of a prompt over its draws."""
        return fmean(self.scores[prompt])

    @property
    def mean(self) -> float:
        """Mean over prompts of the mean over draws."""
        return fmean(self.mean_of(prompt) for prompt in self.scores)

    @property
    def draws(self) -> int:
        """Most draws that a prompt has."""
        return max(len(values) for values in self.scores.values())


def shared(tables: Sequence[ScoreTable]) -> list[str]:
    """Prompts that all tables have, in the order of the first."""
    return [prompt for prompt in tables[0].scores if all(prompt in table.scores for table in tables)]
