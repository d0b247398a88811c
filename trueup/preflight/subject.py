"""What the checks look at: a run as it stands before its first step, and a few of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trueup.data.batching import Batching
from trueup.data.encode import EncodedSet
from trueup.data.records import Prompt
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.models.forward import token_scores
from trueup.models.scoring import response_scores
from trueup.preflight.layout import TOLERANCE
from trueup.rewards.protocol import Completions
from trueup.train.experience import Experience
from trueup.train.lessons import Lesson
from trueup.train.objectives.reward import RewardObjective
from trueup.train.protocols import Objective
from trueup.train.rollout import RolloutPlan
from trueup.types import TokenTrees


@dataclass(frozen=True)
class Subject:
    """A run before its first step.

    Attributes:
        method: the verb that trains it.
        trained: the module whose parameters will be updated.
        policy: the transformers model inside it; of a reward model, itself.
        objective: what a micro-batch is worth.
        source: where micro-batches come from: a ``DataSource``, an ``UnpairedSource`` or a ``RolloutSource``.
        batching: how trees are laid out.
        encoder: from text to token ids.
        data: what is trained on, or the prompts.
        rows: the rows of the data that will be drawn, ascending.
        asked: number -> that many prompts, each as its turns and as the token ids that are trained on.
        learning_rate: its peak.
        reference: the frozen model, where one is in memory.
        same_model: is the reference the policy as it starts?
        stored: are the reference's log-probabilities read from disk, so that asking for many costs nothing?
    """

    method: str
    trained: nn.Module
    policy: Any
    objective: Objective
    source: Any
    batching: Batching
    encoder: Encoder
    data: EncodedSet
    rows: Sequence[int]
    asked: Callable[[int], Sequence[tuple[Prompt, tuple[int, ...]]]]
    learning_rate: float
    reference: nn.Module | None = None
    same_model: bool = True
    stored: bool = False

    @property
    def temperature(self) -> float:
        """What logits are divided by where the objective scores tokens."""
        return getattr(self.objective, "temperature", 1.0)

    @property
    def leaves(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [p for p in self.trained.parameters() if p.requires_grad]

    @property
    def tolerance(self) -> float:
        """The largest difference that rounding explains in the dtype of the model."""
        return TOLERANCE.get(next(self.policy.parameters()).dtype, TOLERANCE[torch.bfloat16])

    @property
    def half(self) -> bool:
        """Is the model in half precision, where single tokens are noisy and only means can be judged?"""
        return next(self.policy.parameters()).dtype in (torch.bfloat16, torch.float16)

    def observe(self, trees: TokenTrees) -> Tensor:
        """What the model says of trees: log-probabilities of tokens ``[N]``, or a reward model's scores ``[K]``."""
        if isinstance(self.objective, RewardObjective):
            return response_scores(self.trained, trees)
        return token_scores(self.policy, trees, self.temperature).logps


@dataclass(frozen=True)
class Encore:
    """A second, smaller rollout: of the same prompts, by weights that were moved a little, paid known scores.

    Attributes:
        plan: its sizes.
        before: the same prompts in the same places, with what the first rollout answered.
        lived: the responses.
        known: ``[K]``, the scores that the reward gave.
        moved, still: ``[N]``, log-probabilities of the responses under the weights that sampled and under the run's.
    """

    plan: RolloutPlan
    before: Sequence[Tree]
    lived: Experience
    known: Tensor
    moved: Tensor
    still: Tensor


@dataclass(frozen=True)
class Rehearsal:
    """A small rollout and the whole use of it without an update.

    Attributes:
        plan: its sizes.
        asked: what the reward was asked, draw by draw.
        encore: a second rollout; None if it could not be made.
        lived: the responses, before what is not trained on is left out.
        lesson: what is trained on.
        scored: ``[N]``, log-probabilities of ``lived`` as training scores them.
        metrics: of the rollout.
        passes: metrics of each optimiser step that would have been made.
        shortened: was the cap on a response lowered for the rehearsal?
    """

    plan: RolloutPlan
    asked: Sequence[Completions]
    encore: Encore | None
    lived: Experience
    lesson: Lesson
    scored: Tensor
    metrics: Mapping[str, float]
    passes: Sequence[Mapping[str, float]]
    shortened: bool


@dataclass(frozen=True)
class Sample:
    """A few of a run's rows, as training will see them.

    Attributes:
        trees: prompts with their responses.
        batch: numbers of trees -> the objective's micro-batch of them.
        few: numbers of the trees for checks that need gradients: short ones.
        rehearsal: how the trees came about, where they were sampled.
    """

    trees: Sequence[Tree]
    batch: Callable[[Sequence[int]], Any]
    few: Sequence[int]
    rehearsal: Rehearsal | None = None

    @property
    def some(self) -> Any:
        """The micro-batch of the few short trees."""
        return self.batch(self.few)
