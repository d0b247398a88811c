"""The enumerable world with a real model in it: what the sampler can return is listed, and scored by the real path."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers as hf
from numpy.typing import NDArray
from torch import Tensor

from trueup.data.batching import Batching
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.losses.preference import sigmoid
from trueup.models.forward import token_scores
from trueup.ops.logprobs import sum_by_branch
from trueup.train.objectives.sft import SftObjective
from trueup.train.protocols import Objective
from trueup.train.sources import DataSource
from trueup.train.step import TrainState, train_step
from trueup.types import Decoding, PairLogps, TokenTrees
from trueup.worlds.enumerable import BOS, EOS, PAD, EnumerableWorld

WORLD = EnumerableWorld(alphabet=5, max_length=2, num_prompts=4, seed=3)
LISTED = WORLD.responses()
REWARDS = torch.from_numpy(WORLD.rewards())
PROMPTS = [Tree(prompt, ()) for prompt in WORLD.prompts()]
ENCODER = Encoder(tokenizer=None, terminator=EOS, stops=frozenset({EOS}))
BATCHING = Batching("shared", 4096, torch.device("cpu"))
DECODING = Decoding(max_new_tokens=WORLD.max_length + 1)


def everything() -> list[tuple[int, ...]]:
    """Every response that the sampler can return, listed by the world or not: its probabilities sum to one."""
    going = [t for t in range(WORLD.vocab_size) if t != EOS]
    cap = DECODING.max_new_tokens
    ended = [(*word, EOS) for n in range(cap) for word in itertools.product(going, repeat=n)]
    return ended + list(itertools.product(going, repeat=cap))


def lay_out(responses: Sequence[tuple[int, ...]]) -> TokenTrees:
    """All responses after every prompt, prompt by prompt, at most 50 to a tree."""
    parts = [tuple(responses[i : i + 50]) for i in range(0, len(responses), 50)]
    return BATCHING.collate([Tree(prompt, part) for prompt in WORLD.prompts() for part in parts])


def per_response(values: Tensor, batch: TokenTrees) -> Tensor:
    """Sum values of response tokens ``[N]`` to ``[P, responses]``."""
    return sum_by_branch(values, batch.branch, batch.num_branches).total.view(WORLD.num_prompts, -1)


LISTED_BATCH = lay_out(LISTED)


def listed_logps(model: Any) -> Tensor:
    """Log-probabilities of the world's responses ``[P,K]``, with gradient."""
    return per_response(token_scores(model, LISTED_BATCH).logps, LISTED_BATCH)


def expected_reward(model: Any) -> Tensor:
    """E[reward] over prompts and the model's own responses, exactly; an unlisted response is worth 0."""
    logps = listed_logps(model)
    return (logps.exp() * REWARDS.to(logps.dtype)).sum(dim=1).mean()


def make_step(model: Any, objective: Objective, batches: Sequence[Any]) -> tuple[dict[str, float], Tensor]:
    """Make one step of rate 0 and return its metrics and the direction it would go: minus the policy's gradient."""
    taken: list[Tensor] = []
    policy = getattr(model, "policy", model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer.register_step_pre_hook(lambda *_: taken.append(-flat([p.grad for p in policy.parameters()])))
    state = TrainState(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0))
    metrics = train_step(state, objective, batches, max_grad_norm=float("inf"))
    return dict(metrics), taken[0]


def gradient(value: Tensor, model: Any) -> Tensor:
    """The gradient of a scalar with respect to all parameters, flat."""
    return flat(torch.autograd.grad(value, list(model.parameters())))


def flat(tensors: Sequence[Tensor | None]) -> Tensor:
    """One vector of all entries."""
    return torch.cat([t.flatten() for t in tensors if t is not None])


def cosine(a: Tensor, b: Tensor) -> float:
    """The inner product over the norms."""
    return float(a @ b / (a.norm() * b.norm()))


@functools.cache
def _reference() -> Any:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=WORLD.vocab_size,
        max_position_embeddings=16,
        initializer_range=0.1,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    model = hf.LlamaForCausalLM(config).double()
    # Demonstrations that are far from uniform and know nothing of the reward.
    taste = torch.randn(WORLD.num_prompts, len(LISTED), dtype=torch.float64).mul(0.7).softmax(dim=1)
    picks = torch.multinomial(taste, 200, replacement=True)
    trees = [Tree(WORLD.prompts()[p], (LISTED[k],)) for p, row in enumerate(picks.tolist()) for k in row]
    source = DataSource(trees, batch_size=200, seed=0, batching=BATCHING)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    state = TrainState(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0))
    for step in range(100):
        train_step(state, SftObjective(), source.draw(model, step).batches, max_grad_norm=1.0)
    return model.eval()


def reference(dtype: torch.dtype = torch.float64) -> Any:
    """A fresh copy of the model that all policies start from: supervised on demonstrations of the world."""
    return copy.deepcopy(_reference()).to(dtype)


def population_dpo(model: Any, ref_logps: Tensor, beta: float) -> Tensor:
    """The DPO loss of every ordered pair of responses, weighted by how often the population has it.

    Both responses are drawn from the reference, and the first is preferred with probability sigmoid(r - r').
    """
    first, second = (~torch.eye(len(LISTED), dtype=torch.bool)).nonzero().unbind(dim=1)
    drawn = ref_logps.softmax(dim=1)
    preferred = torch.sigmoid(REWARDS[:, first] - REWARDS[:, second])
    weight = drawn[:, first] * drawn[:, second] * preferred
    logps, count = listed_logps(model), torch.tensor([len(response) for response in LISTED])
    rows = WORLD.num_prompts
    pairs = PairLogps(
        chosen=logps[:, first].flatten(),
        rejected=logps[:, second].flatten(),
        chosen_count=count[first].repeat(rows),
        rejected_count=count[second].repeat(rows),
        ref_chosen=ref_logps[:, first].flatten(),
        ref_rejected=ref_logps[:, second].flatten(),
    )
    return (sigmoid(pairs, beta=beta) * weight.flatten()).sum() / weight.sum()


@functools.cache
def _dpo_policy(beta: float) -> Any:
    model = reference()
    ref_logps = listed_logps(model).detach()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=150, history_size=50, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = population_dpo(model, ref_logps, beta)
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    return model


def dpo_policy(beta: float, dtype: torch.dtype = torch.float64) -> Any:
    """A fresh copy of the reference after full-batch DPO on population preferences."""
    return copy.deepcopy(_dpo_policy(beta)).to(dtype)


def among_listed(logps: Tensor) -> NDArray[np.float64]:
    """Renormalise to the listed responses: preferences among these say nothing about what else might be written.

    DPO does move probability there, because nothing in its loss forbids it: about a quarter of it at beta 0.3.
    """
    return logps.detach().double().log_softmax(dim=1).numpy()
