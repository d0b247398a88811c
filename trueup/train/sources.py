"""Sources over a data set: fixed examples, and pairs whose rejected side is sampled on the fly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn

from trueup.data.batching import Batching
from trueup.data.order import step_indices
from trueup.data.trees import Tree
from trueup.train.protocols import State, Work

TreeMaker = Callable[[int, list[Tree]], list[Tree]]
"""(step, trees of the step) -> the trees to train on: where on-the-fly responses are put in."""


@dataclass
class DataSource:
    """Batches of token trees from a data set, in an order that is a function of seed and step alone.

    Attributes:
        trees: the data set.
        batch_size: trees of one optimiser step.
        seed: seed of the order.
        batching: how a step is cut.
        complete: changes a step's trees before they are cut (sampled responses); None leaves them.
    """

    trees: Sequence[Tree]
    batch_size: int
    seed: int
    batching: Batching
    complete: TreeMaker | None = None
    _tokens: int = field(default=0, init=False)

    def draw(self, model: nn.Module, step: int) -> Work:
        """The micro-batches of a step."""
        trees = [self.trees[i] for i in step_indices(step, self.batch_size, len(self.trees), self.seed)]
        if self.complete is not None:
            trees = self.complete(step, trees)
        self._tokens += sum(tree.size for tree in trees)
        batches = [self.batching.collate([trees[i] for i in part]) for part in self.batching.cut(trees)]
        same = sum(len(tree.responses) == 2 and tree.responses[0] == tree.responses[1] for tree in trees)
        consumed = {"num_examples": float((step + 1) * self.batch_size), "num_tokens": float(self._tokens)}
        return Work(batches, {"pairs/identical": same / len(trees)} if same else {}, consumed)

    def state(self) -> State:
        """Only the running total: the order needs no state."""
        return {"tokens": self._tokens}

    def restore(self, state: State) -> None:
        """Continue the running total."""
        self._tokens = state["tokens"]
