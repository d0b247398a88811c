"""What healthy runs that are odd begin with: other data, another start, a stop half-way. None of it is a fault."""

from __future__ import annotations

from pathlib import Path

import torch

from faults.stage import Row, Stage
from trueup.config.load import validate
from trueup.config.schema import RECIPES
from trueup.models import hub
from trueup.recipes.bench import Silence
from trueup.recipes.table import recipe


def resumed(stage: Stage) -> None:
    """The run is stopped and goes on from its checkpoint."""
    stage.resumed = True


def easy_pairs(stage: Stage) -> None:
    """Rejected is the chosen response of another prompt: a model that has read the prompt is right at once."""
    rows = stage.rows()
    stage.rewrite(lambda number, row: {**row, "rejected": rows[number - 7]["chosen"]})
    if stage.values["data"].get("validation"):
        held = stage.rows("data.validation")
        stage.rewrite(lambda number, row: {**row, "rejected": held[number - 7]["chosen"]}, "data.validation")


def few_unwanted(stage: Stage) -> None:
    """Three wanted responses to an unwanted one; the weights of the loss make up for it."""
    unwanted = 0
    kept: list[Row] = []
    for row in stage.rows():
        unwanted += not row["label"]
        if row["label"] or unwanted % 3 == 0:
            kept.append(row)
    stage.write(kept)


def bfloat16_reference(stage: Stage) -> None:
    """The reference is the start in bfloat16; the policy stays in float32."""
    start = str(stage.lab / "start")
    out = stage.folder / "bfloat16"
    hub.save(hub.load_causal(start).to(torch.bfloat16), hub.load_tokenizer(start), out)
    stage.set("preference.reference" if stage.method == "dpo" else "kto.reference", str(out))


def sft_on_chosen(stage: Stage) -> None:
    """The start has been fine-tuned on the chosen responses, whose log-probability can then only fall."""
    rows = [{"prompt": row["prompt"], "response": row["chosen"]} for row in stage.rows()]
    stage.set("model.path", str(_fine_tuned(stage, rows, 150)))


def one_word_answers(stage: Stage) -> None:
    """The start answers in one word, of one to three tokens."""
    rows = stage.rows("data.path")
    shown = [
        {"prompt": row["prompt"], "response": row["prompt"].split()[number % 4].strip(".,:?!").lower() or "yes"}
        for number, row in enumerate(rows)
    ]
    stage.set("model.path", str(_fine_tuned(stage, shown, 150)))


def scores_times_ten(stage: Stage) -> None:
    """The reward model's scores are ten times as large; the settings' penalty is too."""
    stage.set("rollout.reward", [{"path": str(stage.lab / "reward"), "weight": 10.0}])


def _fine_tuned(stage: Stage, rows: list[Row], steps: int) -> Path:
    """The laboratory's start after SFT on some rows."""
    kept = stage.get("data.path")
    stage.write(rows, "data.path")
    values = {
        "model": {"path": str(stage.lab / "start")},
        "data": {"path": stage.get("data.path")},
        "optim": {"batch_size": 16, "steps": steps, "learning_rate": 1e-3, "micro_batch_tokens": 1024},
        "run": {"out": str(stage.folder / "first"), "threads": 1, "preflight": "off"},
    }
    stage.set("data.path", kept)
    recipe("sft")(validate(RECIPES["sft"], values, "sft"), Silence())
    return stage.folder / "first" / "final"
