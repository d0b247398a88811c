"""From the setting ``rollout.reward`` to the reward of a run: a model, a rule, a function, a judge, or their sum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trueup.config.rewards import RewardPart, reward_parts
from trueup.data.batching import Batching
from trueup.data.encode import EncodedSet
from trueup.data.records import Loaded, PromptOnly
from trueup.data.shapes import PROMPT_SHAPES
from trueup.errors import UserError, nearest
from trueup.models import hub
from trueup.recipes.reference import require_same_vocabulary
from trueup.rewards.combine import Combination, Part, by_text, by_tokens
from trueup.rewards.custom import load_function
from trueup.rewards.judge import make_judge
from trueup.rewards.learned import LearnedReward
from trueup.rewards.options import make, require_columns
from trueup.rewards.protocol import Reward, TextReward
from trueup.rewards.rows import PromptRows
from trueup.rewards.rules import RULES, make_rule
from trueup.runtime import fingerprint

_SETTING = "rollout.reward"


@dataclass(frozen=True)
class LoadedPart:
    """A part with what it stands for: a reward on text, or a model."""

    given: RewardPart
    name: str
    source: TextReward | nn.Module

    def as_part(self, batching: Batching) -> Part:
        """The part of a combination."""
        if isinstance(self.source, TextReward):
            score = by_text(self.source)
        else:
            score = by_tokens(self.name, LearnedReward(self.source, batching))
        return Part(self.name, score, self.given.weight, self.given.standardise)

    @cached_property
    def identity(self) -> str:
        """What its scores depend on."""
        return self.source.identity if isinstance(self.source, TextReward) else fingerprint.of_weights(self.source)


@dataclass(frozen=True)
class LoadedReward:
    """A reward that is ready but for the way in which its forward passes are cut.

    Attributes:
        parts: what it is the sum of.
        rows: text and metadata of the prompts; None if only models score.
    """

    parts: tuple[LoadedPart, ...]
    rows: PromptRows | None

    def reward(self, batching: Batching) -> Reward:
        """The reward; a model alone, as it is, has no parts to show."""
        if (model := self._lone_model) is not None:
            return LearnedReward(model, batching)
        return Combination(tuple(part.as_part(batching) for part in self.parts))

    @property
    def identity(self) -> str:
        """What a resumed run must find again: the weights of a lone model, else sha256 of all that the parts are."""
        if self._lone_model is not None:
            return self.parts[0].identity
        told = [[part.name, part.identity, part.given.weight, part.given.standardise] for part in self.parts]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    @property
    def _lone_model(self) -> nn.Module | None:
        first = self.parts[0]
        plain = len(self.parts) == 1 and first.given.weight == 1 and not first.given.standardise
        return first.source if plain and isinstance(first.source, nn.Module) else None


@dataclass(frozen=True)
class Scored:
    """The model whose responses are scored: a reward model must read its token ids, and runs beside it."""

    tokenizer: Any
    dtype: str
    device: torch.device


@dataclass(frozen=True)
class _Desk:
    """What parts are loaded with; ``rows`` is there for every part but a model."""

    policy: Scored
    shape: str
    rows: PromptRows | None

    @property
    def prompts(self) -> PromptRows:
        assert self.rows is not None
        return self.rows


def load_rewards(setting: Any, policy: Scored, loaded: Loaded[PromptOnly], prompts: EncodedSet) -> LoadedReward:
    """Load and check every part of ``rollout.reward``.

    Args:
        setting: its value, whose form the configuration has checked.
        policy: what is scored.
        loaded: the prompts as they are read.
        prompts: those of them that are used.

    Raises:
        UserError: a part cannot be loaded, has wrong options, or needs a column that the data do not have.
    """
    given = reward_parts(setting)
    kinds = [_kind(part) for part in given]
    names = [part.name or _NAMES[kind](part) for part, kind in zip(given, kinds, strict=True)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{_SETTING}: two parts are called '{twice[0]}'; give each a name: {{..., name: {twice[0]}2}}")
    rows = PromptRows(loaded, prompts.row_numbers) if set(kinds) != {"model"} else None
    desk = _Desk(policy, loaded.shape, rows)
    parts = zip(
        given, names, (_LOADERS[kind](part, desk) for part, kind in zip(given, kinds, strict=True)), strict=True
    )
    return LoadedReward(tuple(LoadedPart(*part) for part in parts), rows)


def _kind(part: RewardPart) -> str:
    """The key of ``_LOADERS``: what a bare text means can be told only with the rules at hand."""
    if part.kind in ("kind", "judge"):
        return {"kind": "rule", "judge": "judge"}[part.kind]
    file, colon, _ = part.target.rpartition(":")
    if colon and file.endswith(".py"):
        return "function"
    if part.target.endswith(".py"):
        raise UserError(f"{_SETTING}: {part.target} is a file; name the function in it: {part.target}:FUNCTION")
    if part.kind == "text" and part.target in RULES:
        return "rule"
    if not Path(part.target).exists() and (near := nearest(part.target, RULES)):
        raise UserError(f"{_SETTING}: '{part.target}' is no folder and no rule{near}")
    return "model"


_NAMES: Mapping[str, Callable[[RewardPart], str]] = {
    "rule": lambda part: part.target,
    "function": lambda part: part.target.rpartition(":")[2],
    "judge": lambda part: "judge",
    "model": lambda part: "model",
}
"""Kind -> the name of a part that was given none."""


def _rule(part: RewardPart, desk: _Desk) -> TextReward:
    rule = make_rule(part.target, part.options)
    require_columns(f"{_SETTING}: rule '{part.target}'", rule, desk.prompts.columns)
    return rule


def _function(part: RewardPart, desk: _Desk) -> TextReward:
    return load_function(part.target, desk.prompts.columns, _conversational(desk))


def _judge(part: RewardPart, desk: _Desk) -> TextReward:
    judge = make(f"{_SETTING}: judge", make_judge, {"judge": part.target, **part.options})
    require_columns(f"{_SETTING}: judge", judge, desk.prompts.columns)
    return judge


def _model(part: RewardPart, desk: _Desk) -> nn.Module:
    policy = desk.policy
    return load_reward(_SETTING, part.target, policy.dtype, policy.tokenizer).to(policy.device)


_LOADERS: Mapping[str, Callable[[RewardPart, _Desk], TextReward | nn.Module]] = {
    "rule": _rule,
    "function": _function,
    "judge": _judge,
    "model": _model,
}


def _conversational(desk: _Desk) -> bool:
    """Do the data hold prompts as lists of turns? Some have several turns in one text."""
    columns = next((shape.columns for shape in PROMPT_SHAPES if shape.label == desk.shape), {})
    lists = [name for name in ("prompt", "messages", "conversations", "chosen") if columns.get(name) == "a list"]
    return bool(lists) or desk.prompts.several_turns


def load_reward(what: str, path: str, dtype: str, tokenizer: Any) -> Any:
    """Load a reward model, after checking that it is one and that it reads the policy's token ids.

    ``what`` is the setting that named it, for errors.
    """
    scorer = hub.load_scorer(path, dtype, tokenizer)
    kind = ", ".join(scorer.config.architectures or ("a model of no known kind",))
    if not kind.endswith("ForSequenceClassification"):
        # transformers would give it a scalar head of random numbers, and training would follow them.
        raise UserError(f"{what}: {path} holds {kind}, not a reward model; train one with 'trueup reward'")
    require_same_vocabulary(what, path, tokenizer)
    return scorer
