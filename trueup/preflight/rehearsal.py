"""A rollout and the whole use of it without an update: what should be equal at a learning rate of 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from trueup.data.batching import map_tokens, tokens_of
from trueup.data.trees import Tree
from trueup.models.forward import scorer
from trueup.preflight.encore import play_on
from trueup.preflight.outcome import FAILURES
from trueup.preflight.subject import Encore, Rehearsal, Sample, Subject
from trueup.rewards.protocol import Completions, Scores
from trueup.train.experience import Experience
from trueup.train.lessons import Lesson, Use
from trueup.train.rollout import RolloutPlan, RolloutSource
from trueup.train.step import evaluate_objective

CAP = 128
"""Most tokens of a rehearsed response in a quick look."""


def rehearse(subject: Subject, prompts: int, cap: int | None) -> Rehearsal:
    """Sample a rollout of the first prompts with a copy of the source, and evaluate every step that would use it.

    The samples are those that the first rollout will begin with: the luck of a response does not depend on how many
    prompts there are.

    Args:
        subject: an online run.
        prompts: how many.
        cap: most tokens of a response; None for the run's own cap.
    """
    source: RolloutSource = subject.source
    lives: list[Experience] = []
    lessons: list[Lesson] = []
    asked: list[Completions] = []

    def reward(completions: Completions) -> Scores:
        asked.append(completions)
        return source.reward(completions)

    def prepare(model: nn.Module, experience: Experience) -> Lesson:
        lives.append(experience)
        lessons.append(source.use.prepare(model, experience))
        return lessons[-1]

    plan = source.plan
    most = min(plan.decoding.max_new_tokens, cap or plan.decoding.max_new_tokens)
    shortened = most < plan.decoding.max_new_tokens
    number = min(prompts, plan.prompts)
    small = replace(
        plan,
        prompts=number,
        epochs=1,
        mini_batches=min(plan.mini_batches, number),
        decoding=replace(plan.decoding, max_new_tokens=most),
        overlong_buffer=None if shortened else plan.overlong_buffer,
        kl_share=1.0,
    )
    copy = replace(source, plan=small, reward=reward, use=Use(prepare, source.use.batch))
    works = [copy.draw(subject.trained, step) for step in range(small.steps)]
    passes = [evaluate_objective(subject.trained, subject.objective, w.batches) for w in works if w.batches]
    score = scorer(subject.policy, subject.temperature)
    scored = map_tokens(lives[0].trees, score, subject.batching).cpu() if lives[0].trees else torch.zeros(0)
    return Rehearsal(
        small,
        asked,
        _encore(subject, small, asked[0].trees),
        lives[0],
        lessons[0],
        scored,
        works[0].metrics,
        passes,
        shortened,
    )


def _encore(subject: Subject, plan: RolloutPlan, before: Sequence[Tree]) -> Encore | None:
    """A second rollout, which the run itself would not make: one that fails is left out."""
    try:
        return play_on(subject, plan, before)
    except FAILURES:
        return None


def sample_of(subject: Subject, rehearsal: Rehearsal, few: int) -> Sample:
    """The rehearsed responses as what the checks look at."""
    lesson, device = rehearsal.lesson, subject.batching.device

    def batch(numbers: Sequence[int]) -> Any:
        tokens = tokens_of(lesson.trees, numbers)
        parts = {name: value[tokens].to(device) for name, value in lesson.tensors.items()}
        return subject.source.use.batch(subject.batching.collate([lesson.trees[i] for i in numbers]), parts, True)

    return Sample(lesson.trees, batch, _with_credit(lesson)[:few], rehearsal)


def _with_credit(lesson: Lesson) -> list[int]:
    """Numbers of the trees, those first that have something to learn from."""
    advantages = lesson.tensors.get("advantages")

    def idle(number: int) -> bool:
        return advantages is not None and not bool(advantages[tokens_of(lesson.trees, [number])].any())

    return sorted(range(len(lesson.trees)), key=lambda i: (idle(i), _size(lesson.trees[i])))


def _size(tree: Tree) -> int:
    return tree.size
