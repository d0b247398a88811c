"""A second, smaller rollout of the same prompts: by weights that moved a little, with other luck, paid known scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from trueup.data.batching import map_tokens
from trueup.data.order import step_indices
from trueup.data.trees import Tree
from trueup.models.forward import scorer
from trueup.preflight.modes import moved
from trueup.preflight.subject import Encore, Subject
from trueup.rewards.protocol import Completions, Scores
from trueup.runtime.seeding import generator
from trueup.train.experience import Experience
from trueup.train.lessons import Lesson, Use
from trueup.train.rollout import RolloutPlan

PROMPTS, RESPONSES = 2, 8
"""Least numbers, if the first rollout had so many: what is mixed up shows between prompts, luck in many responses."""
MOVES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Lengths of the move of every tensor, in units of its root mean square, of which the first that shows is taken."""
SHOWS, SHOWS_HALF = 0.003, 0.05
"""Mean change of a token's log-probability, in nats, that a sampler with old weights cannot hide; the second in half
precision. Much more than needed would make other responses of the same luck."""
ENOUGH = 1 << 22
"""Weights that are moved."""
SMALLEST = 0.02
"""What a tensor's root mean square counts as at least: adapters begin at 0."""


def play_on(subject: Subject, first: RolloutPlan, before: Sequence[Tree]) -> Encore:
    """Sample the rollout that comes after a rehearsed one, of some of its prompts in the same places.

    Where no response was cut off, the cap is lowered until some are, so that what is paid for that shows.

    Args:
        subject: an online run.
        first: the sizes of the rehearsed rollout.
        before: its first draw.
    """
    group = min(first.group_size, RESPONSES)
    chosen = before[: max(PROMPTS, -(-RESPONSES // group))]
    some = [Tree(tree.prompt, tree.responses[:group]) for tree in chosen]
    once: dict[str, Any] = {"resample_zero_spread": None, "epochs": 1, "mini_batches": 1, "kl_share": 0.0}
    plan = replace(first, prompts=len(some), group_size=group, **once)
    plan = _cut_some(plan, some)
    lives: list[Experience] = []

    def prepare(model: nn.Module, lived: Experience) -> Lesson:
        lives.append(lived)
        return Lesson([], {})

    source = replace(
        subject.source,
        prompts=_in_places(some, plan.seed),
        plan=plan,
        reference=None,
        reward=known_scores,
        use=Use(prepare, subject.source.use.batch),
        records=None,
    )
    source.restore({"buffer": None, "draws": 1, "consumed": {"num_prompts": 0.0, "num_tokens": 0.0}})
    score = scorer(subject.policy, subject.temperature)

    def logps(trees: Sequence[Tree]) -> Tensor:
        return map_tokens(trees, score, subject.batching).cpu()

    leaves = last_leaves([leaf for leaf in subject.policy.parameters() if leaf.requires_grad])
    noise = noise_of(leaves)
    with moved(leaves, noise, _length(subject, leaves, noise, lambda: logps(some))):
        source.draw(subject.trained, 0)
        here = logps(lives[0].trees)
    return Encore(plan, some, lives[0], known_of(len(lives[0].scores)), here, logps(lives[0].trees))


def known_scores(completions: Completions) -> Scores:
    """A reward that gives every response a number of its own, in their order."""
    return Scores(known_of(sum(len(tree.responses) for tree in completions.trees)))


def known_of(number: int) -> Tensor:
    """The scores of so many responses; apart from each other, and none 0."""
    return 1 + torch.arange(number) / 8


def _cut_some(plan: RolloutPlan, trees: Sequence[Tree]) -> RolloutPlan:
    lengths = [len(response) for tree in trees for response in tree.responses]
    cap = plan.decoding.max_new_tokens
    if max(lengths) < cap:
        cap = max(1, int(median(lengths)))
    buffer = None if plan.overlong_buffer is None else min(plan.overlong_buffer, cap)
    return replace(plan, decoding=replace(plan.decoding, max_new_tokens=cap), overlong_buffer=buffer)


def _in_places(trees: Sequence[Tree], seed: int) -> list[Tree]:
    """The trees without responses, so ordered that the second rollout visits them as they are given."""
    rows = step_indices(1, len(trees), len(trees), seed)
    prompts = {row: Tree(tree.prompt, ()) for row, tree in zip(rows, trees, strict=True)}
    return [prompts[row] for row in sorted(prompts)]


def aim(subject: Subject) -> float:
    """Mean change of a token's log-probability that is aimed at, nats."""
    return SHOWS_HALF if subject.half else SHOWS


def last_leaves(leaves: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """The last of some tensors, ``ENOUGH`` weights in all: a part of a model is moved as visibly as all of it."""
    taken: list[nn.Parameter] = []
    for leaf in reversed(leaves):
        if sum(part.numel() for part in taken) >= ENOUGH:
            break
        taken.append(leaf)
    return taken


def _length(
    subject: Subject, leaves: Sequence[nn.Parameter], noise: Sequence[Tensor], logps: Callable[[], Tensor]
) -> float:
    """The first of ``MOVES`` that changes log-probabilities by enough, else the last."""
    start = logps()
    for length in MOVES[:-1]:
        with moved(leaves, noise, length):
            if float((logps() - start).abs().mean()) >= aim(subject):
                return length
    return MOVES[-1]


def noise_of(leaves: Sequence[Tensor]) -> list[Tensor]:
    """Random directions, each as long as its tensor."""
    rng = generator(0, "preflight", "noise")
    return [torch.randn(leaf.shape, generator=rng).to(leaf) * max(_size(leaf), SMALLEST) for leaf in leaves]


def _size(leaf: Tensor) -> float:
    return float(leaf.detach().float().square().mean().sqrt())
