"""The source over a data set: batches of token trees, with what the frozen reference says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trueup.data.batching import Batching
from trueup.data.order import step_indices
from trueup.data.trees import Tree
from trueup.train.protocols import State, Work
from trueup.types import Bundle, TokenTrees

TreeMaker = Callable[[int, list[Tree]], list[Tree]]
"""(step, trees of the step) -> the trees to train on: where on-the-fly responses are put in."""


class Reference(Protocol):
    """What the frozen reference says of a batch: read from a store, or computed."""

    def __call__(self, rows: Sequence[int], batch: TokenTrees) -> Tensor:
        """Return the reference's log-probabilities ``[N]`` of the batch's response tokens.

        Args:
            rows: for each tree of the batch, its row in the data set.
            batch: the trees.
        """
        ...


@dataclass(frozen=True)
class DataBatch(Bundle):
    """A micro-batch of a data set.

    Attributes:
        trees: prompts with their responses.
        ref_logps: float ``[N]``, the reference's log-probabilities of the response tokens; None without a reference.
        margin: float32 ``[B]``, by how much the chosen score of each pair should lead; None where nobody asks.
    """

    trees: TokenTrees
    ref_logps: Tensor | None = None
    margin: Tensor | None = None


@dataclass
class DataSource:
    """Batches of token trees from a data set, in an order that is a function of seed and step alone.

    Attributes:
        trees: the data set.
        batch_size: trees of one optimiser step.
        seed: seed of the order.
        batching: how a step is cut.
        reference: says what the frozen reference gives; None for methods that need none.
        complete: changes a step's trees before they are cut (sampled responses); None leaves them.
        margins: float ``[n]``, a margin for each pair of the data set; None without any.
    """

    trees: Sequence[Tree]
    batch_size: int
    seed: int
    batching: Batching
    reference: Reference | None = None
    complete: TreeMaker | None = None
    margins: np.ndarray | None = None
    _tokens: int = field(default=0, init=False)

    def draw(self, model: nn.Module, step: int) -> Work:
        """The micro-batches of a step."""
        rows = self.visited(step)
        trees = [self.trees[row] for row in rows]
        if self.complete is not None:
            trees = self.complete(step, trees)
        self._tokens += sum(tree.size for tree in trees)
        same = sum(len(tree.responses) == 2 and tree.responses[0] == tree.responses[1] for tree in trees)
        consumed = {"num_examples": float((step + 1) * self.batch_size), "num_tokens": float(self._tokens)}
        batches = list(self._batches(rows, trees))
        return Work(batches, {"pairs/identical": same / len(trees)} if same else {}, consumed)

    def visited(self, step: int) -> list[int]:
        """The rows of a step, in the order in which they are drawn."""
        return step_indices(step, self.batch_size, len(self.trees), self.seed)

    def sweep(self) -> Iterator[DataBatch]:
        """Every tree once, in the order of the data set and cut as a step would be: for held-out evaluation."""
        for start in range(0, len(self.trees), self.batch_size):
            rows = list(range(start, min(start + self.batch_size, len(self.trees))))
            yield from self._batches(rows, [self.trees[row] for row in rows])

    def batch(self, rows: Sequence[int], trees: Sequence[Tree]) -> DataBatch:
        """Trees as one batch; ``rows`` are their places in the data set."""
        laid = self.batching.collate(trees)
        reference = None if self.reference is None else self.reference(rows, laid)
        return DataBatch(laid, reference, self._margin(rows))

    def _batches(self, rows: Sequence[int], trees: Sequence[Tree]) -> Iterator[DataBatch]:
        for part in self.batching.cut(trees):
            yield self.batch([rows[i] for i in part], [trees[i] for i in part])

    def _margin(self, rows: Sequence[int]) -> Tensor | None:
        if self.margins is None:
            return None
        return torch.from_numpy(self.margins[list(rows)].astype(np.float32)).to(self.batching.device)

    def state(self) -> State:
        """Only the running total: the order needs no state."""
        return {"tokens": self._tokens}

    def restore(self, state: State) -> None:
        """Continue the running total."""
        self._tokens = state["tokens"]
