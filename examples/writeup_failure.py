"""Make the write-up's failure in the laboratory: a DPO run whose margin explodes, for `trueup explain` to look into.

A tiny model is pre-trained on two of the eight families of the errands world and fine-tuned for 100 epochs on 24
examples of one of them, so that it has memorised those and knows nothing of the rest. DPO then runs on pairs of all
families with batch 1, beta 0.1 and rejected responses sampled from that model. Beside it a broad model of the same size
is trained on all families. About two minutes on one core.

python examples/writeup_failure.py runs/writeup
trueup explain runs/writeup/dpo --reference runs/writeup/broad/final
trueup explain runs/writeup/dpo --sft runs/writeup/memoriser --out runs/writeup/explain-fifth
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trueup.config.load import read_yaml, validate
from trueup.config.schema import RECIPES
from trueup.models import hub
from trueup.models.tokenizer import train_bpe
from trueup.recipes.bench import Silence
from trueup.recipes.table import recipe
from trueup.worlds.protocol import WorldPrompt
from trueup.worlds.registry import load_world

FAMILIAR, MEMORISED = ("fractions", "facts"), "fractions"
WORLD = load_world("errands")
CONFIG = Path(__file__).parents[1] / "configs/dpo-writeup.yaml"


def demonstrated(prompt: WorldPrompt, draw: int = 0) -> str:
    """A person's imperfect answer."""
    return WORLD.demonstrate(prompt, random.Random(f"{prompt.id}/{draw}"))


def preferred(prompt: WorldPrompt) -> dict[str, str] | None:
    """Two people's answers, the one that the annotator prefers first; None where they agree to the letter."""
    first, second = demonstrated(prompt, 1), demonstrated(prompt, 2)
    if first == second:
        return None
    pair = (first, second) if WORLD.prefers_first(prompt, first, second, random.Random(prompt.id)) else (second, first)
    return {"prompt": prompt.text, "chosen": pair[0], "rejected": pair[1]}


def write(path: Path, rows: Iterable[Mapping[str, str]]) -> str:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def train(verb: str, out: Path, values: Mapping[str, Any]) -> str:
    """Run a recipe; returns the folder of its model."""
    print(f"{out}: {verb}", flush=True)
    run = {**values.get("run", {}), "out": str(out)}
    recipe(verb)(validate(RECIPES[verb], {**values, "run": run}, verb), Silence())
    return str(out / "final")


def build(root: Path, preset: str = "seed", pretraining: int = 100, pairs: int = 1600, **dpo: Any) -> Path:
    """Build everything under ``root`` and return the DPO run's folder; ``dpo`` replaces sections of its settings."""
    prompts = random.Random(0).sample(list(WORLD.prompts("sft")), 4000)
    some = [p for p in prompts if p.family in FAMILIAR]
    few = [p for p in some if p.family == MEMORISED][:24]
    texts = (text for p in prompts for text in (p.text, demonstrated(p)))
    tokenizer = hub.wrap_tokenizer(train_bpe(texts, 640))
    tokenizer.save_pretrained(root / "tokenizer")
    fresh = {"preset": preset, "tokenizer": str(root / "tokenizer"), "context": 128}
    rate = {"batch_size": 16, "learning_rate": 4.0e-3, "betas": (0.9, 0.98)}

    def examples(name: str, of: list[WorldPrompt]) -> dict[str, str]:
        return {"path": write(root / name, ({"prompt": p.text, "response": demonstrated(p)} for p in of))}

    narrow = {"model": fresh, "data": examples("narrow.jsonl", some), "optim": {**rate, "steps": pretraining}}
    base = train("sft", root / "base", narrow)
    broad = {"model": fresh, "data": examples("broad.jsonl", prompts), "optim": {**rate, "steps": 4 * pretraining}}
    train("sft", root / "broad", broad)
    often = {"steps": 300, "batch_size": 8, "learning_rate": 1.0e-3, "schedule": "constant", "warmup": 0.0}
    memory = {"model": {"path": base}, "data": examples("memorised.jsonl", few), "optim": often}
    start = train("sft", root / "memoriser", memory)
    known = [{"prompt": p.text, "chosen": demonstrated(p), "rejected": "no"} for p in few]
    unseen = random.Random(1).sample(list(WORLD.prompts("preference")), 2 * pairs)
    rows = [*known, *(row for p in unseen if (row := preferred(p)))][:pairs]
    settings = {**read_yaml(str(CONFIG)), "model": {"path": start}, "data": {"path": write(root / "pairs.jsonl", rows)}}
    train("dpo", root / "dpo", {**settings, **dpo})
    return root / "dpo"


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/writeup"))
