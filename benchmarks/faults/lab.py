"""A laboratory in which a run of any method takes seconds and still learns: the world ``errands``, prepared once.

    lab = prepare(Path("lab"))
    outcome = run_once(lab, "dpo", seed=0, folder=Path("run"))

The tokenizer, the SFT model, the preference pairs and the reward model are made as those of a study, only smaller.
"""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faults.damage import measure
from faults.stage import STOP, Stage
from trueup.config.load import validate
from trueup.config.schema import RECIPES
from trueup.errors import TrueupError
from trueup.health.families import FAMILIES
from trueup.health.rule import ONLINE
from trueup.recipes.bench import Silence
from trueup.recipes.table import RUNNERS, recipe
from trueup.study import jobs
from trueup.train.reference import visited

CONTEXT = 128
CAP = 40
"""Most tokens of a response; the world's answers have about 20."""


@dataclass(frozen=True)
class Size:
    """Rows of the laboratory's files, and the steps that its models are trained for."""

    demonstrations: int = 4800
    pairs: int = 3200
    heldout: int = 400
    prompts: int = 1200
    half: int = 120
    start: int = 240
    reward: int = 350


@dataclass(frozen=True)
class Lab:
    """Paths of what every run needs.

    Files: ``demonstrations.jsonl``, ``held_demonstrations.jsonl``, ``train.jsonl`` and ``heldout.jsonl`` (pairs),
    ``judged.jsonl`` and ``held_judged.jsonl``, ``prompts.jsonl``, ``world/test.jsonl``. Models: ``start`` (after SFT),
    ``half`` (before it was done with SFT), ``reward`` (the reward model's ``final``).
    """

    root: Path

    def path(self, name: str) -> str:
        """A file or folder of the laboratory."""
        return str(self.root / name)


@dataclass
class Outcome:
    """What a run showed.

    Attributes:
        method, seed: of the run.
        findings: lines of ``findings.jsonl`` with the ``family`` of each.
        error: what stopped it, empty if nothing did: an error of the package that a user would read.
        crash: a traceback, if it ended in another way.
        metrics: lines of ``metrics.jsonl``.
        measures: how good ``final/`` is, by name, higher is better; empty if there is none.
        settings: what the run was told, for those who judge it by its log.
    """

    method: str
    seed: int
    findings: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    crash: str = ""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    measures: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        aside = path.with_suffix(".partial")
        aside.write_text(json.dumps(asdict(self)), encoding="utf-8")
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read what was saved."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


Injection = Callable[[Stage], None]
"""Puts a fault into a run that is about to begin: changes its settings, its data, or the code that it will use."""


def run_once(
    lab: Lab,
    method: str,
    seed: int,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    injection: Injection | None = None,
) -> Outcome:
    """Run a recipe in this process, with all checks, going on after fatal findings; then see what came of it.

    The model is measured by the code as it is, after the injection has been taken out.

    Args:
        lab: what it runs on.
        method: a verb.
        seed: of the run.
        folder: scratch; ``run`` and ``cache`` are made in it and removed.
        settings: values by dotted key, over those of ``usual``.
        injection: the fault; None for a twin.
    """
    for name in ("run", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    visited.cache_clear()  # an injected order of the data must leave nothing behind
    for verb in RUNNERS:  # a patch replaces a function wherever it was imported: all modules must be there
        recipe(verb)
    os.environ["TRUEUP_CACHE"] = str(folder / "cache")  # an injected encoder must leave nothing behind
    outcome = Outcome(method, seed)
    with Stage(lab.root, method, usual(lab, method), folder, seed) as stage:
        for key, value in (settings or {}).items():
            stage.set(key, value)
        outcome.settings = stage.values
        try:
            if injection is not None:
                injection(stage)
            _run(stage)
        except TrueupError as error:
            outcome.error = f"{type(error).__name__}: {error}"
        except Exception:
            outcome.crash = traceback.format_exc(limit=-4)
    outcome.findings, outcome.metrics = (_rows(folder / "run" / f"{name}.jsonl") for name in ("findings", "metrics"))
    for finding in outcome.findings:
        finding["family"] = FAMILIES.get(finding["rule"], "")
    if (folder / "run/final").exists():
        outcome.measures = measure(lab.root, method, folder / "run/final")
    for name in ("run", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return outcome


def _run(stage: Stage) -> None:
    """The run itself: in one go, or stopped after ``stage.stop_after`` steps and resumed."""
    run = {"out": str(stage.folder / "run"), "threads": 1, "seed": stage.seed, "preflight": "full", "eval_every": 25}
    if stage.verb in ONLINE:
        del run["eval_every"]
    if stage.resumed:
        run["save_every"] = STOP
    values = {**stage.values, "run": {"on_fatal": "continue", **run, **stage.values.get("run", {})}}
    verb = stage.verb
    config = validate(RECIPES[verb], values, verb)
    voice = Silence()
    if stage.resumed:
        stage.interrupt(lambda: recipe(verb)(config, voice))
        config = config.model_copy(update={"run": config.run.model_copy(update={"resume": True})})
    recipe(verb)(config, voice)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


OPTIM = {"batch_size": 16, "steps": 50, "micro_batch_tokens": 2048}
ROLLOUT = {"prompts_per_rollout": 16, "epochs": 2, "mini_batches": 1, "decoding": {"max_new_tokens": CAP}}


LIMIT = 1300
"""Rows that a run reads, which is a little more than it needs."""

FEW = 120
"""Held-out rows that a run evaluates."""

GOLD = f"{Path(__file__).with_name('gold_reward.py')}:gold"
"""The true reward, by which GRPO and RLOO learn here; PPO and online DPO learn by the reward model."""


def usual(lab: Lab, method: str) -> dict[str, Any]:
    """Healthy settings of a method: every twin has them. A new nest at each call."""
    p = lab.path
    pairs = {"path": p("train.jsonl"), "validation": p("heldout_few.jsonl"), "limit": LIMIT}
    online: dict[str, Any] = {
        "model": {"path": p("start")},
        "data": {"path": p("prompts.jsonl")},
        "optim": {"steps": 44, "learning_rate": 3e-4, "micro_batch_tokens": 2048},
    }
    rollout = {**ROLLOUT, "reward": p("reward")}
    groups = {**ROLLOUT, "prompts_per_rollout": 12, "reward": GOLD}
    table: dict[str, dict[str, Any]] = {
        "sft": {
            "model": {"path": p("half")},
            "data": {"path": p("demonstrations.jsonl"), "validation": p("held_few.jsonl"), "limit": LIMIT},
            "optim": {**OPTIM, "learning_rate": 1e-3},
        },
        "reward": {
            "model": {"path": p("start")},
            # Enough of both that it ranks better than a coin, and that this can be told.
            "data": {"path": p("train.jsonl"), "validation": p("heldout.jsonl")},
            "optim": {**OPTIM, "steps": 200, "learning_rate": 5e-4},
        },
        "dpo": {
            "model": {"path": p("start")},
            "data": pairs,
            "optim": {**OPTIM, "learning_rate": 3e-4},
            "preference": {"beta": 0.3},
        },
        "orpo": {"model": {"path": p("start")}, "data": pairs, "optim": {**OPTIM, "learning_rate": 3e-4}},
        "kto": {
            "model": {"path": p("start")},
            "data": {"path": p("judged.jsonl"), "validation": p("held_judged.jsonl"), "limit": LIMIT},
            "optim": {**OPTIM, "learning_rate": 3e-4},
        },
        "online-dpo": {**online, "rollout": rollout, "preference": {"beta": 0.3}},
        "ppo": {
            **online,
            "rollout": {**rollout, "prompts_per_rollout": 48},
            "ppo": {"critic": "shared", "vf_coef": 1.0, "kl_coef": 0.1},
        },
        "grpo": {**online, "rollout": groups, "grpo": {"group_size": 4, "kl_coef": 0.2}},
        "rloo": {**online, "rollout": groups, "rloo": {"group_size": 4}},
    }
    return json.loads(json.dumps(table[method]))


def prepare(root: Path, size: Size = Size()) -> Lab:
    """Make the laboratory in ``root``, or find it there; about a minute on one core that has nothing else to do."""
    lab = Lab(root)
    if (root / "ready").exists():
        return lab
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    os.environ["TRUEUP_CACHE"] = str(root / "cache")
    jobs.make_world(root, root / "world", Silence(), world="errands", vocabulary=640)
    _split(root / "world/demonstrations.jsonl", root, size)
    _train_policy(lab, size)
    prompts = {"train": size.pairs, "heldout": size.heldout}
    decoding = {"max_new_tokens": CAP}
    jobs.make_pairs(
        root, root, Silence(), world="errands", policy=lab.path("start"), prompts=prompts, decoding=decoding, seed=0
    )
    _judge(root)
    prompts_left = (root / "world/preference.jsonl").read_text(encoding="utf-8").splitlines()[size.pairs :]
    (root / "prompts.jsonl").write_text("\n".join(prompts_left[: size.prompts]) + "\n", encoding="utf-8")
    for name, few in (("heldout", "heldout_few"), ("held_demonstrations", "held_few"), ("held_judged", "held_judged")):
        lines = (root / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        (root / f"{few}.jsonl").write_text("\n".join(lines[:FEW]) + "\n", encoding="utf-8")
    _train_reward(lab, size.reward)
    shutil.rmtree(root / "cache", ignore_errors=True)
    (root / "ready").touch()
    return lab


def _split(file: Path, root: Path, size: Size) -> None:
    """Demonstrations for training, and some that are held out."""
    lines = file.read_text(encoding="utf-8").splitlines()
    count, end = size.demonstrations, size.demonstrations + size.heldout
    for name, part in (("demonstrations", lines[:count]), ("held_demonstrations", lines[count:end])):
        (root / f"{name}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")


def _train_policy(lab: Lab, size: Size) -> None:
    """The SFT model in two stages, so that SFT runs have something to start from."""
    model = {"preset": "seed", "tokenizer": lab.path("world/tokenizer"), "context": CONTEXT}
    optim = {"batch_size": 32, "learning_rate": 4e-3, "betas": [0.9, 0.98], "micro_batch_tokens": 1024}
    data = {"path": lab.path("demonstrations.jsonl")}
    for name, steps, start in (("half", size.half, model), ("start", size.start, {"path": lab.path("half")})):
        _train(lab, "sft", name, {"model": start, "data": data, "optim": {**optim, "steps": steps}})
        optim["learning_rate"] = 3e-3


def _train_reward(lab: Lab, steps: int) -> None:
    data = {"path": lab.path("train.jsonl"), "validation": lab.path("heldout.jsonl")}
    optim = {"batch_size": 16, "steps": steps, "learning_rate": 1e-3, "micro_batch_tokens": 1024}
    values = {"model": {"path": lab.path("start")}, "data": data, "optim": optim}
    _train(lab, "reward", "reward", values)


def _train(lab: Lab, verb: str, name: str, values: Mapping[str, Any]) -> None:
    """Train a part of the laboratory; only what it is loaded from is kept."""
    out = lab.root / f"{name}.run"
    config = validate(RECIPES[verb], {**values, "run": {"out": str(out), "threads": 1}}, verb)
    recipe(verb)(config, Silence())
    (out / "final").rename(lab.root / name)
    for card in out.glob("reward_model.json"):  # a run against it looks for its card beside its folder
        card.rename(lab.root / card.name)


def _judge(root: Path) -> None:
    """Single responses with a label, for KTO: one of each pair, by turns."""
    for pairs, out in (("train", "judged"), ("heldout", "held_judged")):
        rows = _rows(root / f"{pairs}.jsonl")
        lines = [
            {"prompt": row["prompt"], "response": row[side], "label": side == "chosen"}
            for row, side in ((row, ("chosen", "rejected")[number % 2]) for number, row in enumerate(rows))
        ]
        (root / f"{out}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
