"""Seconds until something happens: `trueup --help`, `import trueup`, the first training step of a tiny run.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import write_result
from rich.console import Console
from rich.table import Table

REPEATS = 5


def main() -> None:
    """Time each command several times and report medians."""
    cases = [
        _case("trueup --help", ["-m", "trueup", "--help"]),
        _case("import trueup", ["-c", "import trueup"]),
        _case("trueup dpo --help", ["-m", "trueup", "dpo", "--help"]),
        _first_step(),
    ]
    table = Table("what", "median seconds", "min", "max")
    for case in cases:
        table.add_row(case["what"], *(f"{case[key]:.2f}" for key in ("median", "min", "max")))
    Console().print(table)
    print(write_result("startup", "cpu", cases))


def _case(what: str, arguments: list[str]) -> dict[str, float | str]:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return {"what": what, "median": statistics.median(times), "min": min(times), "max": max(times)}


def _first_step() -> dict[str, float | str]:
    """A whole `trueup sft` of one step on two rows, from the command line to the written model."""
    from trueup.models.hub import wrap_tokenizer
    from trueup.models.tokenizer import train_bpe

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = [{"prompt": "say one", "response": "one"}, {"prompt": "say two", "response": "two"}]
        (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        wrap_tokenizer(train_bpe(["say one two"], 300)).save_pretrained(folder / "tokenizer")
        times = []
        for repeat in range(REPEATS):
            options = {"model.preset": "seed", "model.tokenizer": folder / "tokenizer", "data": folder / "data.jsonl"}
            options |= {"out": folder / f"run-{repeat}", "optim.steps": 1, "optim.batch_size": 2}
            flags = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "trueup", "sft", *flags], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
    what = "trueup sft, one step, until the model is written"
    return {"what": what, "median": statistics.median(times), "min": min(times), "max": max(times)}


if __name__ == "__main__":
    main()
