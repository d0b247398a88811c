"""A laboratory in miniature: a tokenizer of about 300 tokens, models of width 16, data, and every method's settings.

Small enough that a whole training run takes a fraction of a second, complete enough that it goes through the real
recipes, folders and signals.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trueup.config.load import validate
from trueup.config.schema import RECIPES
from trueup.models import hub
from trueup.models.tokenizer import train_bpe
from trueup.recipes.table import recipe
from trueup.train.loop import RunSummary
from trueup.train.protocols import StepReport

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
"""The preset ``tiny``, which a test session adds to ``hub.PRESETS``."""

CONTEXT = 48
WORDS = ("red", "green", "blue", "round", "square", "small", "big", "near", "far", "one", "two", "three", "sun", "moon")


@dataclass(frozen=True)
class Lab:
    """Paths of what every run needs."""

    root: Path

    def __getattr__(self, name: str) -> str:
        return str(self.root / name.replace("__", "."))


def rows(count: int) -> list[dict[str, str]]:
    """Prompts with a good and a bad answer of various lengths."""
    rng = random.Random(7)
    out = []
    for number in range(count):
        asked = rng.sample(WORDS, rng.randint(2, 5))
        bad = rng.sample(WORDS, rng.randint(1, 6))
        good = " ".join(sorted(asked))
        out.append({"prompt": f"sort {number}: {' '.join(asked)}", "chosen": good, "rejected": " ".join(bad)})
    return out


def write(path: Path, lines: list[Any]) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def judged(pairs: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One response of each pair with its label: two good ones to every bad one."""
    sides = ["rejected" if number % 3 == 2 else "chosen" for number in range(len(pairs))]
    return [
        {"prompt": row["prompt"], "response": row[side], "label": side == "chosen"}
        for row, side in zip(pairs, sides, strict=True)
    ]


def build(root: Path) -> Lab:
    """Write models, reward models and data files to ``root``; the preset ``tiny`` must be known.

    ``model`` has seen the examples, so that what it samples has various lengths and sometimes ends.
    """
    texts = [text for row in rows(200) for text in row.values()]
    tokenizer = hub.wrap_tokenizer(train_bpe(texts, 300))
    for name, make in (("scorer", hub.new_causal_scorer), ("encoder", hub.new_encoder_scorer)):
        torch.manual_seed(3)
        hub.save(make("tiny", len(tokenizer), tokenizer, CONTEXT), tokenizer, root / name)
    tokenizer.save_pretrained(root / "tokenizer")
    some = rows(24)
    # The last row teaches nothing: it is left out, and every run on pairs has a finding before its first step.
    write(root / "pairs.jsonl", [*some, {"prompt": "sort: red", "chosen": "red", "rejected": "red"}])
    later = rows(30)[24:]
    write(root / "held.jsonl", later)
    write(root / "held_examples.jsonl", [{"prompt": row["prompt"], "response": row["chosen"]} for row in later])
    write(root / "examples.jsonl", [{"prompt": row["prompt"], "response": row["chosen"]} for row in some])
    write(root / "judged.jsonl", judged(some))
    write(root / "held_judged.jsonl", judged(later))
    write(root / "prompts.jsonl", [{"prompt": row["prompt"]} for row in some])
    lab = Lab(root)
    verb, values = settings(lab)["sft"]
    run_config(verb, {**values, "optim": {"steps": 100, "learning_rate": 2e-2}}, root / "teacher")
    (root / "teacher" / "final").rename(root / "model")
    return lab


ROLLOUT = {"prompts_per_rollout": 6, "epochs": 2, "mini_batches": 2, "decoding": {"max_new_tokens": 6}}
OPTIM = {"steps": 8, "batch_size": 4, "learning_rate": 3e-3, "micro_batch_tokens": 96}


def settings(lab: Lab) -> dict[str, tuple[str, dict[str, Any]]]:
    """Variant of a method -> (verb, settings without ``run``). Rollouts serve four steps each."""
    pairs = {"path": str(lab.root / "pairs.jsonl")}
    judged = {"path": str(lab.root / "judged.jsonl")}
    prompts = {"path": str(lab.root / "prompts.jsonl")}
    start = {"path": lab.model}
    fresh = {"preset": "tiny", "tokenizer": lab.tokenizer, "context": CONTEXT}
    online = {"model": start, "data": prompts, "optim": OPTIM}
    causal_reward = ROLLOUT | {"reward": lab.scorer}
    return {
        "sft": ("sft", {"model": fresh, "data": {"path": str(lab.root / "examples.jsonl")}, "optim": OPTIM}),
        "reward-causal": ("reward", {"model": start, "data": pairs, "optim": OPTIM}),
        "reward-encoder": (
            "reward",
            {"model": fresh, "data": pairs, "optim": OPTIM, "reward": {"backbone": "encoder"}},
        ),
        "dpo": ("dpo", {"model": start, "data": pairs, "optim": OPTIM}),
        "dpo-lora": (
            "dpo",
            {"model": start, "data": pairs, "optim": OPTIM, "lora": {"rank": 2, "dropout": 0.2}},
        ),
        "dpo-bfloat16": (
            "dpo",
            {"model": {**start, "dtype": "bfloat16", "gradient_checkpointing": True}, "data": pairs, "optim": OPTIM},
        ),
        "dpo-sampled": (
            "dpo",
            {
                "model": start,
                "data": pairs,
                "optim": OPTIM,
                "preference": {"rejected": "reference"},
                "decoding": {"max_new_tokens": 6},
            },
        ),
        "dpo-mixture": (
            "dpo",
            {"model": start, "data": pairs, "optim": OPTIM, "preference": {"loss": "mpo", "weighting": "wpo"}},
        ),
        "dpo-moving": (
            "dpo",
            {"model": start, "data": pairs, "optim": OPTIM, "preference": {"loss": "bco_pair", "sync_every": 3}},
        ),
        "dpo-online": (
            "online-dpo",
            {
                **online,
                # Words are rewarded in whole numbers, so that some groups are tied and left out.
                "rollout": ROLLOUT | {"reward": [{"kind": "words", "at_most": 2}], "resample_zero_spread": 1},
                "preference": {"loss": {"sigmoid": 0.5, "bco_pair": 0.5}, "group_size": 3},
            },
        ),
        "orpo": ("orpo", {"model": start, "data": pairs, "optim": OPTIM}),
        "kto": ("kto", {"model": start, "data": judged, "optim": OPTIM}),
        "kto-bco": ("kto", {"model": start, "data": judged, "optim": OPTIM, "kto": {"loss": "bco"}}),
        "ppo-separate": ("ppo", {**online, "rollout": causal_reward}),
        "ppo-shared": (
            "ppo",
            {
                **online,
                "rollout": ROLLOUT | {"reward": lab.encoder},
                "ppo": {"critic": "shared", "kl_placement": "loss", "kl_target": 0.5, "whiten_rewards": True},
            },
        ),
        "grpo": ("grpo", {**online, "rollout": causal_reward, "grpo": {"group_size": 3}}),
        "grpo-dapo": (
            "grpo",
            {
                **online,
                "rollout": causal_reward | {"resample_zero_spread": 2, "mask_truncated": True, "overlong_buffer": 3},
                "grpo": {"variant": "dapo", "group_size": 2},
            },
        ),
        "rloo": ("rloo", {**online, "rollout": causal_reward, "rloo": {"group_size": 2}}),
    }


VARIANTS = (
    *("sft", "reward-causal", "reward-encoder"),
    *("dpo", "dpo-sampled", "dpo-mixture", "dpo-moving", "dpo-online", "orpo", "kto", "kto-bco"),
    *("ppo-separate", "ppo-shared", "grpo", "grpo-dapo", "rloo"),
)
"""The keys of ``settings``, for test parameters."""


class Listener:
    """A voice that remembers, and calls ``react(step)`` after every step."""

    def __init__(self, react: Callable[[int], None] = lambda step: None) -> None:
        self.react = react
        self.said: list[str] = []
        self.prepared: list[tuple[str, int, int]] = []
        self.began: tuple[int, int] | None = None

    def say(self, text: str) -> None:
        self.said.append(text)

    def prepare(self, what: str, done: int, total: int) -> None:
        self.prepared.append((what, done, total))

    def begin(self, steps: int, done: int) -> None:
        self.began = (steps, done)

    def __call__(self, report: StepReport) -> None:
        self.react(report.step)


def run_config(verb: str, values: dict[str, Any], out: Path, voice: Listener | None = None, **run: Any) -> RunSummary:
    """Run a recipe; ``run`` are settings of the section ``run``."""
    config = validate(RECIPES[verb], {**values, "run": {"out": str(out), "threads": 1, **run}}, verb)
    return recipe(verb)(config, voice or Listener())


def run_variant(lab: Lab, variant: str, out: Path, voice: Listener | None = None, **run: Any) -> RunSummary:
    """Run one variant of ``settings``."""
    verb, values = settings(lab)[variant]
    return run_config(verb, values, out, voice, **run)


def weights(out: Path) -> str:
    """Digest of the bytes of a finished run's weights."""
    return hashlib.sha256((out / "final" / "model.safetensors").read_bytes()).hexdigest()


def journal(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSONL file without what a clock measured."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "step_time"} for line in lines]


def outcome(out: Path) -> Mapping[str, Any]:
    """All that a run must reproduce: weights, metrics, findings, the card of a reward model."""
    card = out / "reward_model.json"
    return {
        "weights": weights(out),
        "metrics": journal(out / "metrics.jsonl"),
        # In order of their steps: those that one look makes are kept apart by a resume between their first steps.
        "findings": journal(out / "findings.jsonl"),
        "card": card.read_text(encoding="utf-8") if card.exists() else None,
    }
