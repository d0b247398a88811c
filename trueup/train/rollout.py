"""The online source: sample from the policy, score, compare with the reference, make a lesson, hand out batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from trueup.data.batching import Batching, map_tokens, tokens_of
from trueup.data.order import step_indices
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.errors import RunError
from trueup.models.forward import TokenLogps
from trueup.models.generate import Sampler, sample
from trueup.ops.returns import overlong_penalty
from trueup.rewards.protocol import Completions, Reward
from trueup.rewards.rows import PromptRows
from trueup.runtime.seeding import generator
from trueup.train.experience import Experience, describe, join, of_groups, spread_groups
from trueup.train.lessons import Lesson, Use
from trueup.train.protocols import State, Work
from trueup.types import Decoding


@dataclass(frozen=True)
class RolloutPlan:
    """The sizes of a rollout and its use: ``epochs * mini_batches`` optimiser steps are made of each.

    Attributes:
        prompts: sampled at a time.
        group_size: responses to each.
        decoding: how they are sampled.
        epochs, mini_batches: passes over a rollout, and optimiser steps of a pass.
        missing_eos_penalty: taken from the reward of a response that was cut off.
        seed: of the order of the prompts and of the sampling.
        overlong_buffer: tokens before the cap in which ``overlong_penalty`` grows; None for no such penalty.
        resample_zero_spread: groups whose responses are all paid the same are left out, and at most this many further
            rollouts fill their places; None keeps them.
        kl_share: share of the prompts whose responses the reference scores, rounded up; below 1 for metrics alone.
    """

    prompts: int
    group_size: int
    decoding: Decoding
    epochs: int
    mini_batches: int
    missing_eos_penalty: float
    seed: int
    overlong_buffer: int | None = None
    resample_zero_spread: int | None = None
    kl_share: float = 1.0

    @property
    def steps(self) -> int:
        """Optimiser steps of one rollout."""
        return self.epochs * self.mini_batches


@dataclass
class RolloutSource:
    """Samples a rollout whenever the last one is used up, and hands it out in mini-batches.

    Attributes:
        prompts: prompt trees without responses; visited in an order that is a function of the seed, each once a pass.
        policy_of: the causal model inside what is trained (PPO trains a policy and a critic as one).
        reference: scores trees under the reference; None where the plan asks for no KL.
        reward: scores completions.
        use: what the method makes of a rollout.
        records: text and metadata of the prompts, for rewards that read them.
        sampler: where responses come from.
    """

    prompts: Sequence[Tree]
    encoder: Encoder
    plan: RolloutPlan
    batching: Batching
    policy_of: Callable[[nn.Module], nn.Module]
    reference: TokenLogps | None
    reward: Reward
    use: Use
    records: PromptRows | None = None
    sampler: Sampler = sample
    _buffer: Lesson | None = field(default=None, init=False)
    _draws: int = field(default=0, init=False)
    _consumed: dict[str, float] = field(default_factory=lambda: {"num_prompts": 0.0, "num_tokens": 0.0}, init=False)

    def draw(self, model: nn.Module, step: int) -> Work:
        """The micro-batches of a step; every ``plan.steps`` steps a new rollout is sampled from ``model``."""
        rollout, use = divmod(step, self.plan.steps)
        if self._buffer is None or use == 0:
            self._buffer = self._sample(model)
        trees = self._buffer.trees
        epoch, part = divmod(use, self.plan.mini_batches)
        order = torch.randperm(len(trees), generator=generator(self.plan.seed, "mini", rollout, epoch)).tolist()
        chosen = order[part :: self.plan.mini_batches]
        cuts = self.batching.cut([trees[i] for i in chosen])
        batches = [self._batch([chosen[i] for i in cut], fresh=use == 0) for cut in cuts]
        return Work(batches, self._buffer.metrics if use == 0 else {}, dict(self._consumed))

    def _sample(self, model: nn.Module) -> Lesson:
        drawn, used = self._collect(model)
        everything = join(drawn)
        self._consumed["num_prompts"] += len(everything.trees)
        self._consumed["num_tokens"] += float(len(everything.branch))
        lesson = self.use.prepare(model, used)
        metrics = {**describe(everything), **lesson.metrics}
        if self.plan.resample_zero_spread is not None:
            unused = len(everything.trees) - len(used.trees)
            metrics |= {"rollout/extra_draws": len(drawn) - 1, "rollout/unused_groups": unused}
        return replace(lesson, metrics=metrics)

    def _collect(self, model: nn.Module) -> tuple[list[Experience], Experience]:
        """All that was drawn, draw by draw, and what of it is trained on."""
        drawn, most = [self._draw(model)], self.plan.resample_zero_spread
        if most is None:
            return drawn, drawn[0]
        used = of_groups(drawn[0], spread_groups(drawn[0]))
        while len(used.trees) < self.plan.prompts and len(drawn) <= most:
            drawn.append(self._draw(model))
            used = join([used, of_groups(drawn[-1], spread_groups(drawn[-1]))])
        return drawn, of_groups(used, torch.arange(len(used.trees)) < self.plan.prompts)

    def _draw(self, model: nn.Module) -> Experience:
        """Sample and score responses to the next prompts."""
        plan = self.plan
        rows = step_indices(self._draws, plan.prompts, len(self.prompts), plan.seed)
        prompts = [self.prompts[i].prompt for i in rows]
        rng = generator(plan.seed, "rollout", self._draws, device=self.batching.device)
        self._draws += 1
        drawn = self.sampler(self.policy_of(model), prompts, plan.group_size, plan.decoding, self.encoder.stops, rng)
        trees = [Tree(p, tuple(s.tokens for s in group)) for p, group in zip(prompts, drawn, strict=True)]
        flat = [s for group in drawn for s in group]
        ended = torch.tensor([s.ended for s in flat])
        records = [self.records[i] for i in rows] if self.records is not None else ()
        scored = self.reward(Completions(trees, tuple(rows), tuple(s.ended for s in flat), self.encoder, records))
        count = torch.tensor([len(s.tokens) for s in flat])
        rewards = scored.total.cpu() - plan.missing_eos_penalty * (~ended).float()
        if plan.overlong_buffer is not None:
            rewards = rewards + overlong_penalty(count, plan.decoding.max_new_tokens, plan.overlong_buffer)
        return Experience(
            trees=trees,
            group=torch.arange(len(rows)).repeat_interleave(plan.group_size),
            branch=torch.arange(len(flat)).repeat_interleave(count),
            old_logps=torch.cat([s.logps for s in flat]),
            ref_logps=self._reference_logps(trees, int(count.sum())),
            scores=scored.total.cpu(),
            parts={name: part.cpu() for name, part in scored.parts.items()},
            rewards=rewards,
            ended=ended,
        )

    def _reference_logps(self, trees: Sequence[Tree], tokens: int) -> Tensor:
        """Of the first prompts, which come in random order; NaN for the rest, so that nothing can use it unseen."""
        some = trees[: math.ceil(self.plan.kl_share * len(trees))]
        logps = torch.full((tokens,), math.nan)
        if self.reference is None or not some:
            return logps
        scored = map_tokens(some, self.reference, self.batching).cpu()
        if bool(scored.isnan().any()):
            raise RunError("the reference gives sampled tokens log-probabilities that are not numbers")
        logps[: len(scored)] = scored
        return logps

    def _batch(self, indices: list[int], fresh: bool) -> Any:
        assert self._buffer is not None
        tokens = tokens_of(self._buffer.trees, indices)
        parts = {name: value[tokens].to(self.batching.device) for name, value in self._buffer.tensors.items()}
        return self.use.batch(self.batching.collate([self._buffer.trees[i] for i in indices]), parts, fresh)

    def state(self) -> State:
        """The buffer in use, so that a run stopped in the middle of a rollout continues with it."""
        buffer = asdict(self._buffer) if self._buffer is not None else None
        return {"buffer": buffer, "draws": self._draws, "consumed": dict(self._consumed)}

    def restore(self, state: State) -> None:
        """Continue with a saved buffer."""
        self._draws, self._consumed = state["draws"], state["consumed"]
        if state["buffer"] is not None:
            trees = [Tree(tuple(t["prompt"]), tuple(map(tuple, t["responses"]))) for t in state["buffer"]["trees"]]
            self._buffer = Lesson(trees, state["buffer"]["tensors"], state["buffer"]["metrics"])
