"""The online source: sample from the policy, score, compare with the reference, assign credit, hand out batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from trueup.data.batching import Batching, map_tokens, tokens_of
from trueup.data.order import step_indices
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.models.forward import TokenLogps
from trueup.models.generate import sample
from trueup.ops.divergences import k1, k3
from trueup.rewards.protocol import Completions, Reward
from trueup.runtime.seeding import generator
from trueup.train.protocols import State, Work
from trueup.types import Bundle, Decoding, TokenTrees


@dataclass(frozen=True)
class RolloutBatch(Bundle):
    """A micro-batch of sampled responses; per-token tensors are ``[N]`` in branch order.

    Attributes:
        trees: prompts with their sampled responses.
        old_logps: log-probabilities the tokens were sampled with.
        ref_logps: log-probabilities under the reference.
        advantages: credit of each token.
        returns, old_values: targets and starting points of the critic; None without one.
        fresh: no update has been made since these were sampled, so sampler and scorer must agree.
    """

    trees: TokenTrees
    old_logps: Tensor
    ref_logps: Tensor
    advantages: Tensor
    returns: Tensor | None
    old_values: Tensor | None
    fresh: bool


@dataclass(frozen=True)
class Experience:
    """One rollout before credit is assigned: K responses in tree order, N response tokens.

    Attributes:
        trees: prompts with their sampled responses.
        group: i64 ``[K]``, the prompt of each response.
        branch: i64 ``[N]``, the response of each token.
        old_logps, ref_logps: ``[N]``.
        rewards: ``[K]``, what each response is paid, the penalty for missing terminators included.
    """

    trees: Sequence[Tree]
    group: Tensor
    branch: Tensor
    old_logps: Tensor
    ref_logps: Tensor
    rewards: Tensor


@dataclass(frozen=True)
class Credit:
    """What credit assignment adds to an experience: ``[N]`` advantages and, with a critic, returns and values."""

    advantages: Tensor
    returns: Tensor | None = None
    values: Tensor | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


AssignCredit = Callable[[nn.Module, Experience], Credit]
"""(model, experience) -> credit. PPO and GRPO differ here, and in their objective, and nowhere else."""


@dataclass(frozen=True)
class RolloutPlan:
    """The sizes of a rollout and its use: ``epochs * mini_batches`` optimiser steps are made of each."""

    prompts: int
    group_size: int
    decoding: Decoding
    epochs: int
    mini_batches: int
    missing_eos_penalty: float
    seed: int

    @property
    def steps(self) -> int:
        """Optimiser steps of one rollout."""
        return self.epochs * self.mini_batches


@dataclass
class _Buffer:
    trees: list[Tree]
    tensors: dict[str, Tensor]
    metrics: dict[str, float]


@dataclass
class RolloutSource:
    """Samples a rollout whenever the last one is used up, and hands it out in mini-batches.

    Attributes:
        prompts: prompt trees without responses; visited in an order that is a function of the seed, each once a pass.
        policy_of: the causal model inside what is trained (PPO trains a policy and a critic as one).
        reference: scores trees under the reference.
        reward: scores completions.
        assign: credit assignment.
    """

    prompts: Sequence[Tree]
    encoder: Encoder
    plan: RolloutPlan
    batching: Batching
    policy_of: Callable[[nn.Module], nn.Module]
    reference: TokenLogps
    reward: Reward
    assign: AssignCredit
    _buffer: _Buffer | None = field(default=None, init=False)
    _consumed: dict[str, float] = field(default_factory=lambda: {"num_prompts": 0.0, "num_tokens": 0.0}, init=False)

    def draw(self, model: nn.Module, step: int) -> Work:
        """The micro-batches of a step; every ``plan.steps`` steps a new rollout is sampled from ``model``."""
        rollout, use = divmod(step, self.plan.steps)
        if self._buffer is None or use == 0:
            self._buffer = self._sample(model, rollout)
        trees = self._buffer.trees
        epoch, part = divmod(use, self.plan.mini_batches)
        order = torch.randperm(len(trees), generator=generator(self.plan.seed, "mini", rollout, epoch)).tolist()
        chosen = order[part :: self.plan.mini_batches]
        cuts = self.batching.cut([trees[i] for i in chosen])
        batches = [self._batch([chosen[i] for i in cut], fresh=use == 0) for cut in cuts]
        return Work(batches, self._buffer.metrics if use == 0 else {}, dict(self._consumed))

    def _sample(self, model: nn.Module, rollout: int) -> _Buffer:
        plan = self.plan
        rows = step_indices(rollout, plan.prompts, len(self.prompts), plan.seed)
        prompts = [self.prompts[i].prompt for i in rows]
        rng = generator(plan.seed, "rollout", rollout, device=self.batching.device)
        drawn = sample(self.policy_of(model), prompts, plan.group_size, plan.decoding, self.encoder.stops, rng)
        trees = [Tree(p, tuple(s.tokens for s in group)) for p, group in zip(prompts, drawn, strict=True)]
        flat = [s for group in drawn for s in group]
        ended = torch.tensor([s.ended for s in flat])
        scores = self.reward(Completions(trees, tuple(rows), tuple(s.ended for s in flat))).cpu()
        count = torch.tensor([len(s.tokens) for s in flat])
        experience = Experience(
            trees=trees,
            group=torch.arange(len(rows)).repeat_interleave(plan.group_size),
            branch=torch.arange(len(flat)).repeat_interleave(count),
            old_logps=torch.cat([s.logps for s in flat]),
            ref_logps=map_tokens(trees, self.reference, self.batching).cpu(),
            rewards=scores - plan.missing_eos_penalty * (~ended).float(),
        )
        credit = self.assign(model, experience)
        self._consumed["num_prompts"] += len(rows)
        self._consumed["num_tokens"] += float(count.sum())
        tensors = {"old_logps": experience.old_logps, "ref_logps": experience.ref_logps}
        optional = {"advantages": credit.advantages, "returns": credit.returns, "old_values": credit.values}
        tensors |= {name: value for name, value in optional.items() if value is not None}
        return _Buffer(trees, tensors, {**_describe(experience, scores, count, ended), **credit.metrics})

    def _batch(self, indices: list[int], fresh: bool) -> RolloutBatch:
        assert self._buffer is not None
        tokens = tokens_of(self._buffer.trees, indices)
        parts = {name: value[tokens].to(self.batching.device) for name, value in self._buffer.tensors.items()}
        return RolloutBatch(
            trees=self.batching.collate([self._buffer.trees[i] for i in indices]),
            fresh=fresh,
            **{"returns": None, "old_values": None, **parts},
        )

    def state(self) -> State:
        """The buffer in use, so that a run stopped in the middle of a rollout continues with it."""
        buffer = asdict(self._buffer) if self._buffer is not None else None
        return {"buffer": buffer, "consumed": dict(self._consumed)}

    def restore(self, state: State) -> None:
        """Continue with a saved buffer."""
        self._consumed = state["consumed"]
        if state["buffer"] is not None:
            trees = [Tree(tuple(t["prompt"]), tuple(map(tuple, t["responses"]))) for t in state["buffer"]["trees"]]
            self._buffer = _Buffer(trees, state["buffer"]["tensors"], state["buffer"]["metrics"])


def _describe(experience: Experience, scores: Tensor, count: Tensor, ended: Tensor) -> dict[str, float]:
    """The rollout's metrics; names are TRL's where the definition is (docs/metrics.md)."""
    grouped = scores[torch.argsort(experience.group, stable=True)].view(int(experience.group.max()) + 1, -1)
    lengths = count.float()
    return {
        "reward": float(scores.mean()),
        "reward_std": float(scores.std()) if len(scores) > 1 else 0.0,
        "frac_reward_zero_std": float((grouped.std(dim=1) < 1e-6).float().mean()) if grouped.shape[1] > 1 else 0.0,
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float((~ended).float().mean()),
        "kl/policy_reference_k1": float(k1(experience.old_logps, experience.ref_logps).mean()),
        "kl/policy_reference_k3": float(k3(experience.old_logps, experience.ref_logps).mean()),
        "kl/sequence_k1": float(k1(experience.old_logps, experience.ref_logps).sum() / len(scores)),
    }
