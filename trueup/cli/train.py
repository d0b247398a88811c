"""The training verbs: their flags are the schema of their recipe."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from trueup.config.load import leaves, load_config, parse_value
from trueup.config.schema import RECIPES
from trueup.errors import UserError

SHORT = {
    "model": "model.path",
    "data": "data.path",
    "out": "run.out",
    "seed": "run.seed",
    "reward-model": "rollout.reward",
    "reward": "rollout.reward",
}
"""Short flags of the settings that every first run needs."""

EXAMPLES = {
    "sft": "trueup sft --model path/to/model --data alpaca.json --out runs/sft --optim.steps 50",
    "reward": "trueup reward --model path/to/model --data pairs.jsonl --data.validation held.jsonl --out runs/rm",
    "dpo": "trueup dpo --model path/to/model --data pairs.jsonl --out runs/dpo --preference.beta 0.3",
    "kto": "trueup kto --model path/to/model --data judged.jsonl --out runs/kto --kto.desirable_weight 1.2",
    "orpo": "trueup orpo --model path/to/model --data pairs.jsonl --out runs/orpo --orpo.beta 0.2",
    "online-dpo": "trueup online-dpo --model runs/sft/final --data prompts.jsonl --reward rules.py:f --out runs/online",
    "ppo": "trueup ppo --model runs/sft/final --data prompts.jsonl --reward-model runs/rm/final --out runs/ppo",
    "grpo": "trueup grpo --model runs/sft/final --data prompts.jsonl --reward-model runs/rm/final --out runs/grpo",
    "rloo": "trueup rloo --model runs/sft/final --data prompts.jsonl --reward-model runs/rm/final --out runs/rloo",
}


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declare ``--config``, the short flags and one ``--section.key`` for every setting of the recipe."""
    schema = RECIPES[verb]
    keys = leaves(schema)
    parser.epilog = f"example:\n  {EXAMPLES[verb]}"
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings; flags override it")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    for short, key in SHORT.items():
        if key in keys:
            parser.add_argument(f"--{short}", dest=key, metavar="VALUE", help=f"the same as --{key}", default=None)
    groups: dict[str, Any] = {}
    for key, field in keys.items():
        section = key.split(".")[0]
        group = groups.setdefault(section, parser.add_argument_group(section))
        group.add_argument(f"--{key}", dest=key, metavar="VALUE", default=None, help=_help(field))


def execute(verb: str, args: argparse.Namespace) -> int:
    """Validate the settings, then run the recipe."""
    overrides = _overrides(verb, args)
    config = load_config(RECIPES[verb], args.config or _of_the_run(overrides), overrides)
    if config.run.resume and (Path(config.run.out) / "final").exists():
        raise UserError(f"{config.run.out}: nothing to resume: the run is finished (it has final/)")
    # Torch is imported only now that the settings are known to be good.
    from trueup.cli.display import RunDisplay
    from trueup.recipes.table import recipe

    with RunDisplay(verb) as display:
        summary = recipe(verb)(config, display)
    result = {"folder": config.run.out, "steps": summary.steps, "seconds": summary.seconds, **summary.metrics}
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{config.run.out}/final", file=sys.stdout)
    return 0


def _of_the_run(overrides: dict[str, Any]) -> str | None:
    """The settings that a run to be resumed was started with: nobody should have to give them again."""
    kept = Path(overrides.get("run.out", "")) / "config.yaml"
    return str(kept) if overrides.get("run.resume") and kept.is_file() else None


def _overrides(verb: str, args: argparse.Namespace) -> dict[str, Any]:
    given = {key: text for key in leaves(RECIPES[verb]) if (text := getattr(args, key)) is not None}
    values = {key: parse_value(text, leaves(RECIPES[verb])[key].annotation) for key, text in given.items()}
    if args.resume:
        values["run.resume"] = True
    if "run.out" not in values and args.config is None:
        values["run.out"] = f"runs/{verb}"
    return values


def _help(field: FieldInfo) -> str:
    default = "" if field.is_required() or field.default is None else f" (default: {field.default})"
    return ((field.description or "") + default).replace("%", "%%")
