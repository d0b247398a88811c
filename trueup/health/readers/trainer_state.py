"""``trainer_state.json`` of transformers, and so of TRL, Axolotl, LLaMA-Factory, ms-swift and Unsloth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueup.errors import UserError
from trueup.health.readers.files import json_value, text, yaml_value
from trueup.health.readers.found import Found, from_rows

NAME = "trainer_state.json"
ARGUMENTS = ("training_args.yaml", "training_args.json", "args.json", "config.yml", "axolotl_config.yml")
"""Where tools that train with transformers leave their arguments as text. Its own ``training_args.bin`` is a pickle,
which would run whatever code it holds when it is opened, so it is not."""
METHODS = frozenset({"sft", "reward", "dpo", "kto", "orpo", "online-dpo", "ppo", "grpo", "rloo"})
_TAGS = {"reward-trainer": "reward"}


def recognises(path: Path) -> bool:
    """Is it that file, by whatever name, a checkpoint, or an output folder with checkpoints?"""
    if path.is_dir():
        return _state(path) is not None
    return path.name == NAME or (path.suffix == ".json" and '"log_history"' in text(path))


def read(path: Path) -> tuple[Found, ...]:
    """Read the log of the last checkpoint; settings from arguments left as text, the method from the model card."""
    file = _state(path) if path.is_dir() else path
    assert file is not None
    state = json_value(file)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise UserError(f"{file}: no list 'log_history': not the state of a transformers trainer")
    if not history:
        raise UserError(f"{file}: 'log_history' is empty: nothing was logged yet, or logging_steps is beyond the run")
    series, notes = from_rows(history)
    every = state.get("logging_steps")
    if isinstance(every, int | float) and every > 1:
        notes += (f"each value is a mean over {every:g} steps (logging_steps)",)
    if file != path:
        notes += (f"read from {file.relative_to(path)}",)
    settings: dict[str, Any] = {"optim.steps": state["max_steps"]} if state.get("max_steps") else {}
    arguments, card = _arguments(file), _card(file)
    if not arguments:
        notes += ("no training arguments as text beside it: what rules should know of them, --set KEY=VALUE tells",)
    return (Found(series, "", "trl", card, {**settings, **arguments}, notes),)


def _state(folder: Path) -> Path | None:
    """The state in a folder, else in its checkpoint of the highest step."""
    if (folder / NAME).is_file():
        return folder / NAME
    steps = {
        int(match[1]): file
        for file in folder.glob(f"checkpoint-*/{NAME}")
        if (match := re.fullmatch(r"checkpoint-(\d+)", file.parent.name))
    }
    return steps[max(steps)] if steps else None


def _places(file: Path) -> tuple[Path, ...]:
    """The folder of the state, and the output folder above a checkpoint."""
    folder = file.absolute().parent
    return (folder, folder.parent) if folder.name.startswith("checkpoint-") else (folder,)


def _arguments(file: Path) -> Mapping[str, Any]:
    for folder in _places(file):
        for name in ARGUMENTS:
            if (folder / name).is_file():
                return json_value(folder / name) if name.endswith("json") else yaml_value(folder / name)
    return {}


def _card(file: Path) -> str | None:
    """The method that a model card's tags name; TRL writes one."""
    for folder in _places(file):
        if (folder / "README.md").is_file():
            head = text(folder / "README.md").split("\n---", 1)[0]
            tags = [tag.strip() for tag in re.findall(r"^\s*- (.+)$", head, re.MULTILINE)]
            return next((_TAGS.get(tag, tag) for tag in tags if _TAGS.get(tag, tag) in METHODS), None)
    return None
