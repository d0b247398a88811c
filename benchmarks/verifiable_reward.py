"""Does a verifiable reward rise, on a real model and in the laboratory, and at which distance from the start?

    python benchmarks/verifiable_reward.py instructions MODEL.gguf INSTRUCTIONS.json [--out DIR]
    python benchmarks/verifiable_reward.py family STUDY [--out DIR]

``instructions``: GRPO on instructions of an Alpaca file that come without an input. A reply should start with
"Answer:" and have at most 15 words; two examples in the prompt say so. ``family``: GRPO on the laboratory's prompts
that ask for the odd one out, paid only for exactly the right answer; STUDY is the folder of a finished default study
(``make demo``), whose SFT model of seed 0 is trained for eight more passes over its demonstrations, and is then the
start. Prompts are all 1,500 of the family that the world has for training. It samples hotter than it is asked at, so
that the chance of a slip at temperature 1 is trained away while it still shows.

Held-out prompts are answered before and after; the difference of the share of replies that meet the whole requirement
comes with its interval over prompts. A case is added to results/verifiable_reward.cpu.json.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, write_result
from verbs import read_rows, trueup, write_rows

from trueup.stats.intervals import mean_interval
from trueup.worlds.registry import load_world

EXAMPLES = (
    ("Name the capital of Italy.", "Answer: The capital of Italy is Rome."),
    ("Why do leaves fall in autumn?", "Answer: Trees drop their leaves to save water in winter."),
)
WORDS, CAP, HELD_OUT, DRAWS = 15, 40, 64, 4
KL_LIMIT = 5.0
"""Nats per response from the start, exact, on held-out prompts: stated before the run."""

Items = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Task:
    """What is asked, what is paid for, and how it is trained; ``cap`` is the most tokens of a reply."""

    model: str
    name: str
    data: Path
    held: Path
    reward: str
    settings: Mapping[str, Any]
    cap: int


def main() -> None:
    """Run the case that was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=["instructions", "family"])
    parser.add_argument("start", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        case = (_instructions if args.case == "instructions" else _family)(args.start, args.files, folder)
    others = [row for row in _recorded() if row["data"] != case["data"]]
    print(json.dumps({key: value for key, value in case.items() if key != "samples"}, indent=1))
    print(write_result("verifiable_reward", "cpu", [*others, case]))


def _instructions(start: Path, files: Sequence[Path], folder: Path) -> dict[str, Any]:
    rows = [row for row in json.loads(files[0].read_text()) if not row["input"] and len(row["instruction"]) < 120]
    random.Random(0).shuffle(rows)
    prompts = [{"prompt": _conversation(row["instruction"])} for row in rows]
    held = write_rows(folder / "held.jsonl", prompts[:HELD_OUT])
    data = write_rows(folder / "train.jsonl", prompts[HELD_OUT:])
    few = f"{{kind: words, at_most: {WORDS}, slope: 0.1, weight: 0.5}}"
    reward = f'[{{kind: starts_with, text: "Answer:", weight: 0.5}}, {few}]'
    settings = {
        "optim__learning_rate": 5e-6,
        "optim__steps": 30,
        "rollout__prompts_per_rollout": 4,
        "rollout__epochs": 1,
        "rollout__mini_batches": 1,
        "rollout__decoding.max_new_tokens": CAP,
        "rollout__missing_eos_penalty": 0.5,
        "grpo__group_size": 8,
        "grpo__kl_coef": 0.1,
    }
    task = Task("SmolLM2-135M-Instruct", "instructions", data, held, reward, settings, CAP)
    return _measure(task, start, _short_answer, folder)


def _family(study: Path, files: Sequence[Path], folder: Path) -> dict[str, Any]:
    data = _odd_ones(("preference", "sft"), folder / "train.jsonl")
    held = _odd_ones(("test",), folder / "held.jsonl")
    answers = {row["id"]: row["answer"].lower() for row in read_rows(held)}
    settings = {
        "optim__learning_rate": 5e-4,
        "optim__steps": 1000,
        "rollout__prompts_per_rollout": 16,
        "rollout__epochs": 1,
        "rollout__mini_batches": 1,
        "rollout__decoding.max_new_tokens": 48,
        "rollout__decoding.temperature": 1.2,
        "rollout__missing_eos_penalty": 0,
        "grpo__group_size": 16,
        "grpo__kl_coef": 0,
        "run__threads": 1,
    }

    def right(item: Mapping[str, Any]) -> bool:
        return item["ended"] and item["response"].strip().lower() == answers[item["prompt_id"]]

    task = Task("laboratory, 2x128", "family", data, held, "exact", settings, 48)
    return _measure(task, _longer_sft(study, folder / "start"), right, folder)


def _longer_sft(study: Path, out: Path) -> Path:
    """The study's SFT model after more of the same: it then knows what is asked, and still writes as it was shown."""
    if not (out / "final").exists():
        settings = {
            "optim__steps": 1500,
            "optim__batch_size": 32,
            "optim__learning_rate": 2e-3,
            "optim__micro_batch_tokens": 1024,
            "run__threads": 1,
        }
        start, data = study / "sft" / "seed-0" / "final", study / "world" / "demonstrations.jsonl"
        trueup("sft", model=start, data=data, out=out, **settings)
    return out / "final"


def _odd_ones(splits: Sequence[str], path: Path) -> Path:
    """The prompts of the family in some splits of the world, each with the one right answer."""
    world = load_world("errands")
    asked = (prompt for split in splits for prompt in world.prompts(split) if prompt.family == "odd")
    return write_rows(path, ({"id": p.id, "prompt": p.text, "answer": world.ideal(p)} for p in asked))


def _measure(task: Task, start: Path, meets: Callable[[Mapping[str, Any]], bool], folder: Path) -> dict[str, Any]:
    """Answer, train, answer again."""
    asked = {"suite": task.held, "draws": DRAWS, "max_new_tokens": task.cap}
    trueup("eval", start, **asked, out=folder / "before")
    seconds = _train(task, start, folder)
    summary = trueup("eval", folder / "run", **asked, reference=start, out=folder / "after")
    before, after = (read_rows(folder / side / "items.jsonl") for side in ("before", "after"))
    rates = [_by_prompt(items, meets) for items in (before, after)]
    difference = mean_interval(rates[1] - rates[0])
    journal = read_rows(folder / "run" / "metrics.jsonl")
    return {
        "model": task.model,
        "data": task.name,
        "reward": task.reward,
        "settings": {key.replace("__", "."): value for key, value in task.settings.items()},
        "prompts": len(rates[0]),
        "draws": DRAWS,
        "before": float(rates[0].mean()),
        "after": float(rates[1].mean()),
        "greedy_before": _greedy(start, task, meets, folder / "greedy-before"),
        "greedy_after": _greedy(folder / "run", task, meets, folder / "greedy-after"),
        "difference": {"estimate": difference.estimate, "low": difference.low, "high": difference.high},
        "kl_nats_per_response": summary["kl/sequence"],
        "kl_nats_per_token": summary["kl/token"],
        "kl_limit_nats_per_response": KL_LIMIT if task.name == "instructions" else None,
        "training_seconds": seconds,
        "reward_by_step": [row["reward"] for row in journal if "reward" in row],
        "samples": _samples(before, after),
    }


def _train(task: Task, start: Path, folder: Path) -> float:
    """Wall seconds of the training run; one that is there already is not made again."""
    told = folder / "seconds.json"
    if not told.exists():
        began = time.perf_counter()
        trueup("grpo", model=start, data=task.data, reward=task.reward, out=folder / "run", **task.settings)
        told.write_text(json.dumps(time.perf_counter() - began), encoding="utf-8")
    return float(json.loads(told.read_text(encoding="utf-8")))


def _greedy(model: Path, task: Task, meets: Callable[[Mapping[str, Any]], bool], out: Path) -> float:
    """The share of held-out prompts whose most probable reply meets the requirement."""
    trueup("eval", model, suite=task.held, max_new_tokens=task.cap, temperature=0, out=out)
    return float(_by_prompt(read_rows(out / "items.jsonl"), meets).mean())


def _by_prompt(items: Items, meets: Callable[[Mapping[str, Any]], bool]) -> np.ndarray:
    """The share of a prompt's draws that meet the requirement, one number a prompt."""
    met: dict[str, list[bool]] = {}
    for item in items:
        met.setdefault(item["prompt_id"], []).append(bool(meets(item)))
    return np.array([np.mean(values) for values in met.values()])


def _samples(before: Items, after: Items, count: int = 6) -> list[dict[str, str]]:
    """The first draw of the first prompts, before and after: not chosen by anybody."""
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b["draw"] == 0][:count]
    return [{"prompt": b["prompt"], "before": b["response"], "after": a["response"]} for b, a in pairs]


def _short_answer(item: Mapping[str, Any]) -> bool:
    text = item["response"]
    return item["ended"] and text.startswith("Answer:") and len(text.split()) <= WORDS


def _conversation(instruction: str) -> list[dict[str, str]]:
    shown = [
        turn for q, a in EXAMPLES for turn in ({"role": "user", "content": q}, {"role": "assistant", "content": a})
    ]
    return [*shown, {"role": "user", "content": instruction}]


def _recorded() -> list[dict[str, Any]]:
    file = RESULTS / "verifiable_reward.cpu.json"
    return json.loads(file.read_text())["cases"] if file.exists() else []


if __name__ == "__main__":
    main()
