"""A less over-fitted reference: given, retrained with fewer steps, or on the way back to the base model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from trueup.config.load import read_yaml, validate
from trueup.config.schema import RECIPES, RecipeConfig
from trueup.errors import UserError
from trueup.models import hub
from trueup.recipes.bench import Silence, Voice
from trueup.recipes.reference import require_same_vocabulary
from trueup.recipes.table import recipe
from trueup.runtime.journal import Journal

SHARE = 5
"""Supervised fine-tuning is repeated with this part of its steps."""

HOW = "give --reference MODEL (an earlier checkpoint, a broader model), --sft RUN or --base MODEL"


@dataclass(frozen=True)
class Given:
    """What the user said about another reference: at most one of them."""

    reference: str | None = None
    sft: str | None = None
    base: str | None = None


@dataclass(frozen=True)
class Alternative:
    """A model to start from and to be compared with (None: there is none), and what it is, or why there is none."""

    path: str | None
    about: str


def alternative_reference(given: Given, config: RecipeConfig, out: Path, voice: Voice) -> Alternative:
    """Find or make the less over-fitted reference; what is made is kept in ``out`` and not made again."""
    start = config.model.path
    if start is None:
        return Alternative(None, "the run starts from fresh weights")
    if given.reference is not None:
        return _checked(given.reference, start, given.reference)
    if given.base is not None:
        return _checked(_halfway(start, given.base, out), start, f"half-way back to {given.base}")
    sft = given.sft or _behind(start)
    if sft is None:
        return Alternative(None, f"no other reference is known: {HOW}")
    path, steps, whole = _shorter(Path(sft), out, config, voice)
    return _checked(path, start, f"SFT stopped at {steps} of {whole} steps")


def _checked(path: str, start: str, about: str) -> Alternative:
    require_same_vocabulary("--reference", path, hub.load_tokenizer(start))
    return Alternative(path, about)


def _behind(start: str) -> str | None:
    """The folder of the SFT run that made a run's start, if it lies beside it and its own start still exists."""
    run = Path(start).parent
    manifest = run / "manifest.json"
    if not manifest.exists() or not (run / "config.yaml").exists():
        return None
    if json.loads(manifest.read_text(encoding="utf-8")).get("method") != "sft":
        return None
    model = read_yaml(str(run / "config.yaml"))["model"]
    here = model.get("path") or model.get("tokenizer") or ""
    return str(run) if Path(here).exists() else None


def _shorter(run: Path, out: Path, config: RecipeConfig, voice: Voice) -> tuple[str, int, int]:
    """Repeat an SFT run from its settings with a part of its steps."""
    if not (run / "config.yaml").exists():
        raise UserError(f"--sft {run}: is not a run folder: it has no config.yaml")
    sft = validate(RECIPES["sft"], read_yaml(str(run / "config.yaml")), str(run / "config.yaml"))
    whole = max((row["step"] for row in Journal(run / "metrics.jsonl").rows()), default=0)
    if whole < SHARE:
        raise UserError(f"--sft {run}: made {whole} steps, of which there is no {SHARE}th part")
    steps = whole // SHARE
    if not (out / "final").exists():
        voice.say(f"reference: repeating the SFT run {run} with {steps} of its {whole} steps")
        settings = {"out": str(out), "resume": (out / "config.yaml").exists(), "trackers": (), "save_every": None}
        how = {"device": config.run.device, "threads": config.run.threads}
        section = sft.run.model_copy(update={**settings, **how})
        optim = sft.optim.model_copy(update={"steps": steps})
        recipe("sft")(sft.model_copy(update={"run": section, "optim": optim}), Silence())
    return str(out / "final"), steps, whole


def _halfway(start: str, base: str, out: Path) -> str:
    """Save the mean of two models' weights."""
    final = out / "final"
    if not final.exists():
        model, other = hub.load_causal(start), hub.load_causal(base)
        weights, far = model.state_dict(), other.state_dict()
        if {name: w.shape for name, w in weights.items()} != {name: w.shape for name, w in far.items()}:
            raise UserError(f"--base {base}: is of another shape than {start}; give the model that it was tuned from")
        model.load_state_dict({name: (weight + far[name]) / 2 for name, weight in weights.items()})
        aside = out / "final.partial"
        hub.save(model, hub.load_tokenizer(start), aside)
        aside.rename(final)
    return str(final)
