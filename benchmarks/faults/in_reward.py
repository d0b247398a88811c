"""Faults of reward models, in their own training and where a run uses them, and of rewards that are programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faults.fault import Fault
from faults.stage import Stage
from trueup.data.trees import Tree
from trueup.models import hub, scoring
from trueup.recipes.rewards import LoadedReward
from trueup.rewards.learned import LearnedReward
from trueup.train.rollout import RolloutSource

REWARD = "rollout.reward"
ONLINE = ("grpo", "ppo")


def _pooled(place: Callable[[Any], Tensor]) -> Callable[[Stage, float], None]:
    """The score is read at another token."""

    def inject(stage: Stage, _: float) -> None:
        stage.wrap(
            scoring, "response_scores", lambda old: lambda model, trees: old(model, replace(trees, last=place(trees)))
        )

    return inject


def _end_of_prompt(trees: Any) -> Tensor:
    first = torch.ones_like(trees.branch, dtype=torch.bool)
    first[1:] = trees.branch[1:] != trees.branch[:-1]
    return trees.source[first]


def _end_of_row(trees: Any) -> Tensor:
    width = trees.tokens.shape[1]
    return (trees.last // width + 1) * width - 1


def big_head(stage: Stage, deviation: float) -> None:
    """The head begins with large random weights."""

    def wrap(old: Any) -> Any:
        def load(*arguments: Any, **options: Any) -> Any:
            model = old(*arguments, **options)
            nn.init.normal_(model.score.weight, 0.0, deviation)
            return model

        return load

    stage.wrap(hub, "load_scorer", wrap)


def drift(stage: Stage, speed: float) -> None:
    """A bias is added to all scores that grows from call to call."""
    calls = [0]

    def wrap(old: Any) -> Any:
        def scores(model: Any, trees: Any) -> Tensor:
            calls[0] += 1
            return old(model, trees) + speed * calls[0]

        return scores

    stage.wrap(scoring, "response_scores", wrap)


def lost_head(stage: Stage, _: float) -> None:
    """The reward model was saved without its head, and is loaded with a random one."""
    folder = stage.folder / "headless"
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = hub.load_tokenizer(str(stage.lab / "reward"))
    model = hub.load_scorer(str(stage.lab / "reward"))
    nn.init.normal_(model.score.weight, 0.0, 0.5)
    hub.save(model, tokenizer, folder)
    shutil.copy(stage.lab / "reward_model.json", folder)
    stage.set(REWARD, str(folder))


def head_not_saved(stage: Stage, _: float) -> None:
    """Training is right, and ``final/`` gets another head."""

    def wrap(old: Any) -> Any:
        def save(model: Any, tokenizer: Any, folder: Path) -> None:
            with torch.no_grad():
                model.score.weight.normal_(0.0, 0.02)
            old(model, tokenizer, folder)

        return save

    stage.wrap(hub, "save", wrap)


def _learned(change: Callable[[Any, Any, Any], Any]) -> Callable[[Stage, float], None]:
    """A fault of the reward model's use in a run: (its call, itself, completions) -> scores."""

    def inject(stage: Stage, _: float) -> None:
        stage.set(REWARD, str(stage.lab / "reward"))
        stage.wrap(LearnedReward, "__call__", lambda old: lambda self, completions: change(old, self, completions))

    return inject


def _other_tokens(old: Any, self: Any, completions: Any) -> Any:
    trees = [Tree(t.prompt[:1], t.responses) for t in completions.trees]
    return old(self, replace(completions, trees=trees))


def _no_terminator(old: Any, self: Any, completions: Any) -> Any:
    trees = [Tree(t.prompt, tuple(r[:-1] or r for r in t.responses)) for t in completions.trees]
    return old(self, replace(completions, trees=trees))


def _coarse(old: Any, self: Any, completions: Any) -> Any:
    scores = old(self, completions)
    return replace(scores, total=(scores.total + 1000).bfloat16().float())


def paid(change: Callable[[Any, Tensor, Any, float], Tensor]) -> Callable[[Stage, float], None]:
    """A fault of the way from the reward to the update: (experience, rewards, generator, strength) -> rewards."""

    def inject(stage: Stage, strength: float) -> None:
        rng = torch.Generator().manual_seed(stage.seed)

        def wrap(old: Any) -> Any:
            def draw(self: Any, model: Any) -> Any:
                lived = old(self, model)
                rewards = change(lived, lived.rewards, rng, strength)
                return replace(lived, rewards=rewards, scores=rewards)

            return draw

        stage.wrap(RolloutSource, "_draw", wrap)

    return inject


def scored(change: Callable[[Any, Tensor, torch.Generator, float], Tensor]) -> Callable[[Stage, float], None]:
    """A fault of the reward itself, as its author wrote it: (completions, scores, generator, strength) -> scores."""

    def inject(stage: Stage, strength: float) -> None:
        rng = torch.Generator().manual_seed(stage.seed)

        def wrap(old: Any) -> Any:
            def reward(self: Any, batching: Any) -> Any:
                right = old(self, batching)

                def scores(completions: Any) -> Any:
                    found = right(completions)
                    return replace(found, total=change(completions, found.total, rng, strength))

                return scores

            return reward

        stage.wrap(LoadedReward, "reward", wrap)

    return inject


def _zeroed(completions: Any, scores: Tensor, rng: torch.Generator, share: float) -> Tensor:
    return scores.where(torch.rand(len(scores), generator=rng) >= share, 0.0)


def _not_numbers(completions: Any, scores: Tensor, rng: torch.Generator, share: float) -> Tensor:
    return scores.where(torch.rand(len(scores), generator=rng) >= share, float("nan"))


def _length(completions: Any, scores: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    lengths = [len(response) for tree in completions.trees for response in tree.responses]
    return scores + weight * torch.tensor(lengths, dtype=scores.dtype)


def _shuffled(lived: Any, rewards: Tensor, rng: torch.Generator, _: float) -> Tensor:
    return rewards[torch.randperm(len(rewards), generator=rng)]


def no_penalty(stage: Stage, _: float) -> None:
    """The penalty for a response that was cut off finds its terminator in the padding, and is never paid."""

    def wrap(old: Any) -> Any:
        def draw(self: Any, model: Any) -> Any:
            lived = old(self, model)
            rewards = lived.rewards + self.plan.missing_eos_penalty * (~lived.ended).float()
            return replace(lived, rewards=rewards)

        return draw

    stage.wrap(RolloutSource, "_draw", wrap)


def loose(stage: Stage, _: float) -> None:
    """The verifier looks for a word anywhere in the response."""
    stage.set(REWARD, f"{Path(__file__).with_name('loose_reward.py')}:mentions")


def _constant(completions: Any, scores: Tensor, rng: torch.Generator, _: float) -> Tensor:
    return torch.full_like(scores, 1.0)


FAULTS = (
    Fault("F70", "read before the terminator", ("reward",), "reward", _pooled(lambda t: t.last - 1)),
    Fault("F70", "read at the prompt's end", ("reward",), "reward", _pooled(_end_of_prompt)),
    Fault("F71", "read at the row's end", ("reward",), "reward", _pooled(_end_of_row), also=("log-probabilities",)),
    Fault("F72", "head not in the checkpoint", ("reward",), "optimisation", head_not_saved, also=("reward",)),
    Fault("F72", "reward model with a random head", ONLINE, "reward", lost_head),
    Fault(
        "F73", "head starts too large", ("reward",), "reward", big_head, (10.0,), "deviation", also=("optimisation",)
    ),
    Fault(
        "F75",
        "scores drift",
        ("reward",),
        "reward",
        drift,
        (0.05, 1.0),
        "a call",
        settings={"reward.centring": 0.0},
        invalid="scores of two moments cannot be compared",
    ),
    Fault("F74", "reward model reads other tokens", ("ppo",), "reward", _learned(_other_tokens)),
    Fault("F79", "reward model sees no terminator", ("ppo",), "reward", _learned(_no_terminator)),
    Fault("F80", "scores rounded", ("ppo",), "reward", _learned(_coarse), also=("numbers",)),
    Fault(
        "F82",
        "penalty for no end is inert",
        ("grpo",),
        "reward",
        no_penalty,
        settings={"rollout.decoding": {"max_new_tokens": 16}},
        also=("rollout",),
        invalid="the penalty of the settings is not paid",
    ),
    Fault("F95", "constant reward", ONLINE, "reward", scored(_constant)),
    Fault(
        "F114",
        "not a number as reward",
        ONLINE,
        "reward",
        scored(_not_numbers),
        (0.05,),
        "share of responses",
        also=("numbers", "policy update"),
    ),
    Fault(
        "F115", "verifier's errors are scores", ("grpo",), "reward", scored(_zeroed), (0.2, 0.5), "share of responses"
    ),
    Fault("F116", "exploitable reward", ("grpo",), "reward", loose),
    Fault("F117", "reward of another response", ("grpo", "ppo"), "reward", paid(_shuffled), also=("policy update",)),
    Fault("F61", "longer is better", ("grpo",), "reward", scored(_length), (0.02, 0.3), "a token"),
)
