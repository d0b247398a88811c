"""Healthy runs of every method, most of them odd in some way: the monitor must stay quiet.

Each kind of run has two forms that differ in a setting, and its own seeds: ``FIT`` is what thresholds are fitted on,
``REPORT`` is what false alarms are counted on. The kinds are the false-alarm traps of the catalogue of silent failures
and what people do in practice: adapters, half precision, batches of one, no warm-up, other losses, a resumed run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.lab import Injection
from faults.odd_starts import (
    bfloat16_reference,
    easy_pairs,
    few_unwanted,
    one_word_answers,
    resumed,
    scores_times_ten,
    sft_on_chosen,
)

Settings = Mapping[str, Any]
"""Dotted key -> value, over the laboratory's usual ones."""


@dataclass(frozen=True)
class Kind:
    """A way to train.

    Attributes:
        method: a verb.
        name: what is odd about it.
        fit, report: settings of the two sets.
        begin: changes the run's data, its start or its course before it begins.
        seeds: what is added to the number of the kind for the seeds of the two sets; others than usual where a run was
            withdrawn (``sound.py``), or moved to the set for thresholds (``MOVED``), and is replaced by a new one.
        held: is a penalty or a tiny rate to keep the policy where it is?
    """

    method: str
    name: str
    fit: Settings = field(default_factory=dict)
    report: Settings = field(default_factory=dict)
    begin: Injection | None = None
    seeds: tuple[int, int] = (100, 1000)
    held: bool = False


@dataclass(frozen=True)
class Scenario:
    """One run that is meant to be healthy: the arguments of ``lab.run_once``, and whether it is to stay where it is."""

    name: str
    method: str
    seed: int
    settings: Settings
    begin: Injection | None
    held: bool = False

    @property
    def for_gold(self) -> bool:
        """Is it paid for the true reward, or a model of it, or tuned on pairs made by it?"""
        return self.method != "sft" and REWARD not in self.settings


def _paid(function: str) -> str:
    return f"{Path(__file__).with_name('odd_rewards.py')}:{function}"


RATE, STEPS, BATCH, SHAPE, WARM = (
    f"optim.{name}" for name in ("learning_rate", "steps", "batch_size", "schedule", "warmup")
)
MICRO, CAP, HEAT = "optim.micro_batch_tokens", "rollout.decoding.max_new_tokens", "rollout.decoding.temperature"
REWARD, PROMPTS, EPOCHS = "rollout.reward", "rollout.prompts_per_rollout", "rollout.epochs"
SUM = {"sigmoid": 0.8, "sft": 0.2}

_SFT = (
    Kind("sft", "plain", {STEPS: 60}, {STEPS: 70}),
    Kind("sft", "adapters", {"lora.rank": 4, RATE: 4e-3}, {"lora.rank": 8, RATE: 3e-3}),
    Kind("sft", "no warm-up, cosine", {WARM: 0.0, SHAPE: "cosine"}, {WARM: 0.0, SHAPE: "cosine", RATE: 7e-4}),
    Kind(
        "sft", "long at a constant rate", {SHAPE: "constant", STEPS: 140}, {SHAPE: "constant", STEPS: 160, RATE: 7e-4}
    ),
    Kind(
        "sft",
        "batches of one or two",
        {BATCH: 2, STEPS: 120, RATE: 5e-4},
        {BATCH: 1, STEPS: 150, RATE: 1e-4},
        seeds=(100, 3000),
    ),
    Kind("sft", "small forward passes", {MICRO: 128}, {MICRO: 192, BATCH: 24}),
    Kind("sft", "tiny rate", {RATE: 5e-5}, {RATE: 8e-5}),
    Kind("sft", "bfloat16", {"model.dtype": "bfloat16", RATE: 2e-3}, {"model.dtype": "bfloat16", RATE: 3e-3}),
)
_REWARD = (
    Kind("reward", "plain", {STEPS: 180}, {STEPS: 220}),
    Kind("reward", "long at a constant rate", {STEPS: 260, SHAPE: "constant"}, {STEPS: 300, SHAPE: "constant"}),
    Kind("reward", "other batches", {BATCH: 24, STEPS: 150}, {BATCH: 8, STEPS: 360}),
    Kind("reward", "not centred", {"reward.centring": 0.0, STEPS: 200}, {"reward.centring": 0.001, STEPS: 220}),
    Kind("reward", "easy pairs", {STEPS: 50}, {STEPS: 70}, easy_pairs),
)
_DPO = (
    Kind("dpo", "plain", {STEPS: 60}, {STEPS: 80}),
    Kind("dpo", "chosen falls after SFT on it", {RATE: 6e-4}, {RATE: 8e-4, STEPS: 80}, sft_on_chosen),
    Kind("dpo", "easy pairs", {STEPS: 50}, {STEPS: 60, "preference.beta": 0.25}, easy_pairs, seeds=(100, 2000)),
    Kind("dpo", "reference in bfloat16", {STEPS: 50}, {STEPS: 70}, bfloat16_reference),
    Kind("dpo", "bfloat16", {"model.dtype": "bfloat16", RATE: 5e-4}, {"model.dtype": "bfloat16", RATE: 6e-4}),
    Kind("dpo", "adapters", {"lora.rank": 4, RATE: 2e-3}, {"lora.rank": 8, "lora.dropout": 0.1, RATE: 1e-3}),
    Kind("dpo", "batches of one or two", {BATCH: 2, STEPS: 120, RATE: 1e-4}, {BATCH: 1, STEPS: 160, RATE: 5e-5}),
    Kind("dpo", "tiny rate", {RATE: 2e-5}, {RATE: 3e-5, STEPS: 80}),
    Kind("dpo", "no warm-up, cosine", {WARM: 0.0, SHAPE: "cosine"}, {WARM: 0.0, SHAPE: "cosine", RATE: 4e-4}),
    Kind(
        "dpo", "long at a constant rate", {SHAPE: "constant", STEPS: 120}, {SHAPE: "constant", STEPS: 140, RATE: 2e-4}
    ),
    Kind("dpo", "small beta", {"preference.beta": 0.05, RATE: 2e-4}, {"preference.beta": 0.08, RATE: 2e-4}),
    Kind("dpo", "large beta", {"preference.beta": 1.0}, {"preference.beta": 2.0}),
    Kind("dpo", "label smoothing", {"preference.label_smoothing": 0.1}, {"preference.label_smoothing": 0.2}),
    Kind(
        "dpo",
        "ipo",
        {"preference.loss": "ipo", "preference.beta": 0.1},
        {"preference.loss": "ipo", "preference.beta": 0.2},
    ),
    Kind(
        "dpo",
        "simpo",
        {"preference.loss": "simpo", "preference.beta": 2.0},
        {"preference.loss": "simpo", "preference.beta": 2.5},
    ),
    Kind("dpo", "a sum of losses", {"preference.loss": SUM}, {"preference.loss": "rpo"}),
    Kind("dpo", "weight decay", {"optim.weight_decay": 0.1}, {"optim.weight_decay": 0.05, STEPS: 70}),
    Kind("dpo", "moving reference", {"preference.sync_every": 20}, {"preference.sync_every": 15, STEPS: 75}),
    Kind("dpo", "small forward passes", {MICRO: 192}, {MICRO: 256, BATCH: 24}),
    Kind("dpo", "resumed", {STEPS: 60}, {STEPS: 70}, resumed),
)
_KTO = (
    Kind("kto", "plain", {STEPS: 60, RATE: 1.5e-4}, {STEPS: 80, RATE: 1.5e-4}, seeds=(300, 3000)),
    Kind("kto", "bco", {"kto.loss": "bco"}, {"kto.loss": "bco", STEPS: 80}),
    Kind("kto", "batches of four or six", {BATCH: 4, STEPS: 100, RATE: 1e-4}, {BATCH: 6, STEPS: 90, RATE: 1e-4}),
    Kind(
        "kto", "few unwanted", {"kto.undesirable_weight": 3.0}, {"kto.undesirable_weight": 2.8, STEPS: 70}, few_unwanted
    ),
    Kind("kto", "reference in bfloat16", {STEPS: 50}, {STEPS: 70}, bfloat16_reference),
)
_ORPO = (
    Kind("orpo", "plain", {STEPS: 60}, {STEPS: 80}),
    Kind("orpo", "large beta", {"orpo.beta": 0.5}, {"orpo.beta": 1.0}),
    Kind("orpo", "long at a constant rate", {SHAPE: "constant", STEPS: 120}, {SHAPE: "constant", STEPS: 140}),
)
_PPO = (
    Kind("ppo", "plain", {STEPS: 48}, {STEPS: 60}),
    Kind("ppo", "critic of its own", {"ppo.critic": "separate"}, {"ppo.critic": "separate", STEPS: 60}),
    Kind("ppo", "strong penalty", {"ppo.kl_coef": 1.0}, {"ppo.kl_coef": 2.0}, held=True),
    Kind(
        "ppo",
        "penalty in the loss",
        {"ppo.kl_placement": "loss"},
        {"ppo.kl_placement": "loss", "ppo.kl_estimator": "k2"},
    ),
    Kind("ppo", "hot", {HEAT: 1.3}, {HEAT: 1.2}),
    Kind("ppo", "cold", {HEAT: 0.7}, {HEAT: 0.8}),
    Kind(
        "ppo",
        "scores times ten",
        {"ppo.critic": "separate", "ppo.kl_coef": 1.0},
        {"ppo.critic": "separate", "ppo.kl_coef": 1.5},
        scores_times_ten,
    ),
)
_GRPO = (
    Kind("grpo", "plain", {STEPS: 48}, {STEPS: 60}),
    Kind("grpo", "one update a rollout, loss near 0", {EPOCHS: 1, STEPS: 30}, {EPOCHS: 1, STEPS: 40}),
    Kind("grpo", "strong penalty", {"grpo.kl_coef": 5.0}, {"grpo.kl_coef": 8.0}, held=True),
    Kind("grpo", "hot", {HEAT: 1.3}, {HEAT: 1.2}),
    Kind("grpo", "cold", {HEAT: 0.7}, {HEAT: 0.8}),
    Kind("grpo", "dr_grpo", {"grpo.variant": "dr_grpo"}, {"grpo.variant": "bnpo"}),
    Kind("grpo", "dapo", {"grpo.variant": "dapo"}, {"grpo.variant": "cispo"}),
    Kind("grpo", "gspo", {"grpo.variant": "gspo"}, {"grpo.variant": "gspo", STEPS: 60}),
    Kind("grpo", "seldom paid", {REWARD: _paid("sparse"), RATE: 1e-4}, {REWARD: _paid("sparse"), RATE: 2e-4}),
    Kind("grpo", "scores around 100", {REWARD: _paid("shifted")}, {REWARD: _paid("shifted"), STEPS: 60}),
    Kind(
        "grpo",
        "one-word answers",
        {REWARD: _paid("early_letter"), CAP: 8, RATE: 6e-5},
        {REWARD: _paid("early_letter"), CAP: 6, RATE: 5e-5},
        one_word_answers,
    ),
    Kind("grpo", "large groups", {PROMPTS: 6, "grpo.group_size": 8}, {PROMPTS: 4, "grpo.group_size": 12}),
    Kind("grpo", "tiny rate", {RATE: 2e-5}, {RATE: 3e-5}, held=True),
)
_OTHERS = (
    Kind("rloo", "plain", {STEPS: 48}, {STEPS: 60}),
    Kind("rloo", "pairs of responses", {"rloo.group_size": 2, PROMPTS: 24}, {"rloo.group_size": 3, PROMPTS: 16}),
    Kind("rloo", "strong penalty", {"rloo.kl_coef": 0.5}, {"rloo.kl_coef": 1.0}, held=True),
    Kind("rloo", "seldom paid", {REWARD: _paid("sparse"), RATE: 1e-4}, {REWARD: _paid("sparse"), RATE: 2e-4}),
    Kind("online-dpo", "plain", {STEPS: 48, RATE: 1.5e-4}, {STEPS: 60, RATE: 1.5e-4}, seeds=(300, 3000)),
    Kind(
        "online-dpo", "best and worst of four", {"preference.group_size": 4, PROMPTS: 12}, {"preference.group_size": 3}
    ),
    Kind(
        "online-dpo",
        "ipo",
        {"preference.loss": "ipo", RATE: 1e-4},
        {"preference.loss": "ipo", RATE: 8e-5, STEPS: 56},
        seeds=(300, 3000),
    ),
)
KINDS: tuple[Kind, ...] = (*_SFT, *_REWARD, *_DPO, *_KTO, *_ORPO, *_PPO, *_GRPO, *_OTHERS)

MOVED = (
    Scenario("easy pairs", "dpo", 1015, {STEPS: 70, "preference.beta": 0.2}, easy_pairs),
    Scenario("ipo", "online-dpo", 1067, {"preference.loss": "ipo", STEPS: 60}, None),
)
"""Runs that were counted until a rule was changed because of them: ``margin-per-token`` and ``wrong-way``."""

FIT: tuple[Scenario, ...] = (
    *(
        Scenario(kind.name, kind.method, kind.seeds[0] + number, kind.fit, kind.begin, kind.held)
        for number, kind in enumerate(KINDS)
    ),
    *MOVED,
)
REPORT: tuple[Scenario, ...] = tuple(
    Scenario(kind.name, kind.method, kind.seeds[1] + number, kind.report, kind.begin, kind.held)
    for number, kind in enumerate(KINDS)
)
