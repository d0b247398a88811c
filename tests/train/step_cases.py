"""One optimiser step of every method on a tiny model, with trees of very unequal lengths, cut as one likes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers as hf
from torch import Tensor

from trueup.data.batching import Batching
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.losses.catalog import CATALOG
from trueup.losses.overrides import resolve
from trueup.losses.pairs import choose
from trueup.losses.variants import VARIANTS
from trueup.models.actor_critic import ActorCritic
from trueup.models.forward import frozen_scorer
from trueup.rewards.protocol import Completions, Scores
from trueup.train.companions import RunningMean
from trueup.train.experience import AssignCredit
from trueup.train.kl_control import KlControl
from trueup.train.lessons import by_credit, by_pairs
from trueup.train.objectives.grpo import GrpoObjective, grpo_credit
from trueup.train.objectives.ppo import PpoCredit, PpoObjective
from trueup.train.objectives.preference import PreferenceObjective
from trueup.train.objectives.reward import RewardObjective
from trueup.train.objectives.sft import SftObjective
from trueup.train.objectives.unpaired import UnpairedObjective
from trueup.train.protocols import Objective, Source, StepReport
from trueup.train.reference import live
from trueup.train.rollout import RolloutPlan, RolloutSource
from trueup.train.sources import DataSource, Reference
from trueup.train.step import TrainState, train_step
from trueup.train.unpaired import UnpairedSource, mismatched_kl
from trueup.types import Decoding

VOCABULARY, CAP = 41, 24
LENGTHS = ((1, 1, 30), (40, 2, 1), (3, 17, 9), (12, 5, 5), (25, 1, 3), (2, 33, 1), (7, 8, 21), (18, 1, 1))
"""Tokens of (prompt, first response, second response)."""

SHAPE = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 128, "vocab_size": VOCABULARY}
STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
# Large enough that a few tokens take most of the probability, as in a trained model.
CONFIG = hf.GPT2Config(**SHAPE, **STILL, initializer_range=0.2, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def causal(dtype: torch.dtype, seed: int = 0) -> Any:
    """A GPT-2, because its layer norms stay in the dtype of the weights: float64 is float64 throughout."""
    torch.manual_seed(seed)
    return hf.GPT2LMHeadModel(CONFIG).to(dtype).eval()


def scorer(dtype: torch.dtype) -> Any:
    torch.manual_seed(2)
    config = copy.deepcopy(CONFIG)
    config.num_labels = 1
    return hf.GPT2ForSequenceClassification(config).to(dtype)


def trees(responses: int) -> list[Tree]:
    """Eight trees of random tokens with one or two responses each."""
    rng = torch.Generator().manual_seed(3)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (n,), generator=rng).tolist())

    return [Tree(draw(p), (draw(a), draw(b))[:responses]) for p, a, b in LENGTHS]


def batching(max_tokens: int) -> Batching:
    return Batching("shared", max_tokens, torch.device("cpu"))


def data(responses: int, max_tokens: int, reference: Reference | None = None) -> DataSource:
    return DataSource(trees(responses), len(LENGTHS), seed=0, batching=batching(max_tokens), reference=reference)


def judged(max_tokens: int, reference: Reference) -> UnpairedSource:
    """The first responses of ``trees`` with labels; KTO's reference point is measured on the second ones."""
    own, foreign = trees(1), [Tree(tree.prompt, tree.responses[1:]) for tree in trees(2)]
    wanted = np.arange(len(own)) % 3 > 0
    point = mismatched_kl(foreign, reference, batching(max_tokens))
    return UnpairedSource(own, wanted, len(own), 0, batching(max_tokens), reference, point)


def half_a_nat() -> RunningMean:
    """A running mean that has seen something."""
    mean = RunningMean("seen")
    mean(StepReport(1, {"seen": 0.5}))
    return mean


def share_of_even_tokens(completions: Completions) -> Scores:
    responses = [response for tree in completions.trees for response in tree.responses]
    return Scores(torch.tensor([sum(token % 2 == 0 for token in response) / len(response) for response in responses]))


def rollouts(dtype: torch.dtype, max_tokens: int, group_size: int, assign: AssignCredit) -> RolloutSource:
    """One rollout over the prompts of ``trees``; any of eight tokens ends a response, so lengths are unequal too."""
    plan = RolloutPlan(
        prompts=len(LENGTHS),
        group_size=group_size,
        decoding=Decoding(max_new_tokens=CAP),
        epochs=1,
        mini_batches=1,
        missing_eos_penalty=0.5,
        seed=4,
    )
    return RolloutSource(
        prompts=[Tree(tree.prompt, ()) for tree in trees(1)],
        encoder=Encoder(tokenizer=None, terminator=2, stops=frozenset(range(2, 10))),
        plan=plan,
        batching=batching(max_tokens),
        policy_of=lambda model: getattr(model, "policy", model),
        reference=frozen_scorer(causal(dtype, seed=1)),
        reward=share_of_even_tokens,
        use=by_credit(assign),
    )


@dataclass(frozen=True)
class Case:
    """A method: how to make its model, its objective, and a source that cuts to a number of tokens."""

    model: Callable[[torch.dtype], Any]
    objective: Callable[[torch.dtype], Objective]
    source: Callable[[torch.dtype, int], Source]


def online(name: str, **changes: Any) -> Case:
    """A variant of GRPO's table on one rollout of groups of four."""
    variant = resolve(name, changes)
    return Case(
        causal,
        lambda dtype: GrpoObjective(variant, temperature=1.0, max_length=CAP),
        lambda dtype, size: rollouts(dtype, size, 4, grpo_credit(variant)),
    )


CASES: Mapping[str, Case] = {
    "sft": Case(causal, lambda dtype: SftObjective(), lambda dtype, size: data(1, size)),
    "preference": Case(
        causal,
        lambda dtype: PreferenceObjective(choose("sigmoid", beta=0.3)),
        lambda dtype, size: data(2, size, live(frozen_scorer(causal(dtype, seed=1)))),
    ),
    "mixture": Case(
        causal,
        lambda dtype: PreferenceObjective(choose("mpo", beta=0.3, weighting="wpo"), half_a_nat()),
        lambda dtype, size: data(2, size, live(frozen_scorer(causal(dtype, seed=1)))),
    ),
    "online-dpo": Case(
        causal,
        lambda dtype: PreferenceObjective(choose("sigmoid", beta=0.3)),
        lambda dtype, size: replace(rollouts(dtype, size, 4, grpo_credit(VARIANTS["grpo"])), use=by_pairs()),
    ),
    "kto": Case(
        causal,
        lambda dtype: UnpairedObjective(CATALOG["kto"], {"beta": 0.3, "undesirable_weight": 1.2}),
        lambda dtype, size: judged(size, live(frozen_scorer(causal(dtype, seed=1)))),
    ),
    "reward": Case(scorer, lambda dtype: RewardObjective(centring=0.1), lambda dtype, size: data(2, size)),
    "grpo": online("grpo", clip_high=0.28, kl_coef=0.1),
    **{name: online(name) for name in VARIANTS if name != "grpo"},
    "gspo-wide": online("gspo", clip_low=0.1, clip_high=0.1, kl_coef=0.1, kl_estimator="k2"),
    "dapo-bounded": online("dapo", delta=1.4, kl_coef=0.1, kl_estimator="k1", kl_corrected=True),
    "ppo": Case(
        lambda dtype: ActorCritic(causal(dtype)).to(dtype),
        lambda dtype: PpoObjective(0.2, 0.2, vf_coef=0.5, temperature=1.0),
        lambda dtype, size: rollouts(dtype, size, 2, PpoCredit(batching(size), KlControl(0.1))),
    ),
    "ppo-loss-kl": Case(
        lambda dtype: ActorCritic(causal(dtype)).to(dtype),
        lambda dtype: PpoObjective(0.2, None, vf_coef=0.5, temperature=1.0, kl_coef=KlControl(0.1), kl_estimator="k2"),
        lambda dtype, size: rollouts(
            dtype, size, 2, PpoCredit(batching(size), KlControl(0.1), False, whiten_rewards=True)
        ),
    ),
}


def state_of(model: Any) -> TrainState:
    """AdamW at a constant rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return TrainState(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0))


def drawn(case: Case, dtype: torch.dtype, max_tokens: int) -> tuple[Any, list[Any]]:
    """The model and the micro-batches of its step; the model has moved since they were drawn, so ratios are not 1."""
    model = case.model(dtype)
    batches = list(case.source(dtype, max_tokens).draw(model, 0).batches)
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            shift = torch.randn(parameter.shape, generator=noise, dtype=torch.float64)
            parameter.add_(0.03 * shift.to(dtype))
    return model, batches


def recorded_step(model: Any, objective: Objective, batches: Sequence[Any]) -> tuple[Mapping[str, float], Tensor]:
    """Make a step and return its metrics and the gradient that the optimiser was given, flat."""
    seen: list[Tensor] = []
    state = state_of(model)
    state.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    )
    metrics = train_step(state, objective, batches, max_grad_norm=float("inf"))
    return metrics, seen[0]
