"""Short runs of TRL's own trainers on tiny models, with trueup looking on."""

from __future__ import annotations

import copy
import importlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from trl_peer import PLAIN, as_rows, draw_pairs, tiny_llama, tokenizer, trainer

from trueup.errors import GateError
from trueup.integrations.trl import TrueupCallback, watch

Change = Callable[[Any], None]


@dataclass(frozen=True)
class Watched:
    """A trainer, the callback that watched it, what that said, and why it did not begin, if so."""

    trainer: Any
    callback: TrueupCallback
    said: Sequence[str]
    refused: str = ""

    @property
    def rules(self) -> dict[str, str]:
        """Rule -> severity of everything found."""
        return {finding.rule: finding.severity for finding in self.callback.findings}


def drawn(count: int = 48, seed: int = 0) -> list[dict[str, str]]:
    """Pairs of text of unequal lengths."""
    rng = random.Random(seed)
    return as_rows(draw_pairs([(rng.randint(2, 6), rng.randint(2, 8), rng.randint(2, 8)) for _ in range(count)], seed))


def dpo(out: Path, rows: Sequence[dict[str, str]] | None = None, model: Any = None, **settings: Any) -> Any:
    """A DPO trainer; its reference is a copy unless one is given."""
    model = model or tiny_llama()
    given = {"ref_model": copy.deepcopy(model), "max_steps": 10, "logging_steps": 1, "learning_rate": 1e-4} | settings
    return trainer("dpo", model, rows or drawn(), out, **given)


def reward(out: Path, **settings: Any) -> Any:
    """A reward trainer."""
    torch.manual_seed(0)
    config = tiny_llama().config
    config.num_labels = 1
    rows = [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in drawn()]
    given = {"max_steps": 10, "logging_steps": 1, "learning_rate": 1e-4} | settings
    return trainer("reward", hf.LlamaForSequenceClassification(config), rows, out, **given)


def kto(out: Path, **settings: Any) -> Any:
    """A KTO trainer."""
    sides = ("chosen", "rejected")
    rows = [
        {"prompt": row["prompt"], "completion": row[sides[i % 2]], "label": not i % 2} for i, row in enumerate(drawn())
    ]
    model = tiny_llama()
    given = {"ref_model": copy.deepcopy(model), "max_steps": 6, "logging_steps": 1, "learning_rate": 1e-4} | settings
    return trainer("kto", model, rows, out, **given)


def online(kind: str, out: Path, score: Callable[..., list[float]], **settings: Any) -> Any:
    """A GRPO or RLOO trainer of a model that ends its responses; its reference is loaded from a folder."""
    from datasets import Dataset

    library, model = importlib.import_module("trl"), ending()
    model.save_pretrained(out / "start")
    model.config._name_or_path = str(out / "start")
    words = tokenizer()
    words.padding_side = "left"
    given = {"max_steps": 10, "logging_steps": 1, "learning_rate": 1e-4, "beta": 0.04} | settings
    config = getattr(library, f"{kind}Config")(
        output_dir=str(out), **PLAIN, per_device_train_batch_size=8, num_generations=4, max_completion_length=8, **given
    )
    rows = Dataset.from_list([{"prompt": row["prompt"]} for row in drawn()])
    return getattr(library, f"{kind}Trainer")(
        model=model, reward_funcs=score, args=config, train_dataset=rows, processing_class=words
    )


def ending() -> Any:
    """A model that has learnt to end what it writes: one token in four is the terminator."""
    model, rng = tiny_llama(), torch.Generator().manual_seed(3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(25):
        ids = torch.randint(3, model.config.vocab_size, (16, 12), generator=rng)
        ids[torch.rand(ids.shape, generator=rng) < 0.25] = model.config.eos_token_id
        optimiser.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
    return model


def variety(completions: Sequence[str], **_: Any) -> list[float]:
    """How many different words a response has."""
    return [float(len(set(text.split()))) for text in completions]


def watched(peer: Any, on_fatal: Any = "continue") -> Watched:
    """Train with trueup looking on."""
    said: list[str] = []
    callback = watch(peer, on_fatal=on_fatal, say=said.append)
    try:
        peer.train()
    except GateError as error:
        return Watched(peer, callback, said, str(error))
    return Watched(peer, callback, said)
