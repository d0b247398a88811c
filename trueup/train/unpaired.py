"""The source over single responses with a label, and the reference points that their losses are measured from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from trueup.data.batching import Batching
from trueup.data.order import step_indices
from trueup.data.trees import Tree
from trueup.models.forward import scorer
from trueup.train.protocols import State, Work
from trueup.train.sources import Reference
from trueup.types import Bundle, TokenTrees

ReferencePoint = Callable[[nn.Module, Sequence[int]], float]
"""(policy, rows of the step) -> the point that all responses of the step are measured from."""


@dataclass(frozen=True)
class UnpairedBatch(Bundle):
    """A micro-batch of single responses.

    Attributes:
        trees: prompts with one response each.
        ref_logps: float ``[N]``, the reference's log-probabilities of the response tokens.
        desirable: bool ``[K]``, whether each response is wanted.
        reference_point: the same for the whole step, a constant.
    """

    trees: TokenTrees
    ref_logps: Tensor
    desirable: Tensor
    reference_point: float


@dataclass
class UnpairedSource:
    """Batches of judged responses, in an order that is a function of seed and step alone.

    Attributes:
        trees: the data set, one response each.
        desirable: bool ``[n]``, the label of each tree.
        batch_size: responses of one optimiser step.
        seed: seed of the order.
        batching: how a step is cut.
        reference: says what the frozen reference gives.
        point: gives a step's reference point, before the step is cut.
    """

    trees: Sequence[Tree]
    desirable: np.ndarray
    batch_size: int
    seed: int
    batching: Batching
    reference: Reference
    point: ReferencePoint
    _tokens: int = field(default=0, init=False)

    def draw(self, model: nn.Module, step: int) -> Work:
        """The micro-batches of a step."""
        rows = self.visited(step)
        batches = list(self._batches(model, rows))
        self._tokens += sum(self.trees[row].size for row in rows)
        consumed = {"num_examples": float((step + 1) * self.batch_size), "num_tokens": float(self._tokens)}
        return Work(batches, consumed=consumed)

    def visited(self, step: int) -> list[int]:
        """The rows of a step, in the order in which they are drawn."""
        return step_indices(step, self.batch_size, len(self.trees), self.seed)

    def sweep(self, model: nn.Module) -> Iterator[UnpairedBatch]:
        """Every response once, in the order of the data set, ``batch_size`` to a reference point, as a step has."""
        for start in range(0, len(self.trees), self.batch_size):
            yield from self._batches(model, range(start, min(start + self.batch_size, len(self.trees))))

    def batch(self, rows: Sequence[int], point: float) -> UnpairedBatch:
        """Rows of the data set as one batch, measured from ``point``."""
        trees = self.batching.collate([self.trees[row] for row in rows])
        desirable = torch.from_numpy(self.desirable[list(rows)]).to(self.batching.device)
        return UnpairedBatch(trees, self.reference(rows, trees), desirable, point)

    def _batches(self, model: nn.Module, rows: Sequence[int]) -> Iterator[UnpairedBatch]:
        point = self.point(model, rows)
        for part in self.batching.cut([self.trees[row] for row in rows]):
            yield self.batch([rows[i] for i in part], point)

    def state(self) -> State:
        """Only the running total: the order needs no state."""
        return {"tokens": self._tokens}

    def restore(self, state: State) -> None:
        """Continue the running total."""
        self._tokens = state["tokens"]


def mismatched_kl(trees: Sequence[Tree], reference: Reference, batching: Batching) -> ReferencePoint:
    """Return KTO's reference point z = max(0, mean over the step's rows of log π - log π_ref of a foreign response).

    Ethayarajh et al. 2024, arXiv 2402.01306. The policy is scored in evaluation mode and without a
    gradient. The mean is over the whole step, so that its cut into micro-batches does not matter; TRL's is over one.

    Args:
        trees: row for row, the prompts with a response to another prompt.
        reference: says what the frozen reference gives of those.
        batching: how they are cut.
    """

    @torch.no_grad()
    def point(model: nn.Module, rows: Sequence[int]) -> float:
        score, foreign = scorer(model), [trees[row] for row in rows]
        total = 0.0
        for part in batching.cut(foreign):
            batch = batching.collate([foreign[i] for i in part])
            ratio = score(batch) - reference([rows[i] for i in part], batch)
            total += float(ratio.double().sum())
        return max(0.0, total / len(rows))

    return point
