"""Seconds and memory of the data path: read, encode, order and collate preference pairs of growing number.

python benchmarks/data_path.py [--sizes 10000 100000 1000000]

Every size runs in a fresh process, twice: with an empty cache, and again with what the first run left there. Memory is
the process's anonymous resident memory (RssAnon of /proc/self/status, sampled as it goes): pages of mapped files, which
the kernel may drop at any time, are not in it. What is there before the data (Python, torch, the tokenizer) is
``base_mib``, so ``grown_mib`` is what the data path adds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import write_result
from rich.console import Console
from rich.table import Table

SIZES = (10_000, 100_000, 1_000_000)
STEPS, BATCH, MICRO_TOKENS = 200, 32, 2048
VOCABULARY = 2000
SAMPLED_EVERY = 0.01
_ONCE = 1000

VERBS = ("explain", "describe", "compare", "list", "summarise", "translate", "improve", "check", "write", "plan")
ADJECTIVES = (
    "short",
    "simple",
    "clear",
    "old",
    "new",
    "common",
    "famous",
    "quick",
    "healthy",
    "cheap",
    "large",
    "quiet",
)
NOUNS = (
    *("recipe", "river", "letter", "garden", "engine", "story", "market", "computer", "window", "teacher", "holiday"),
    *("season", "bicycle", "library", "mountain", "language", "breakfast", "telescope", "neighbour", "contract"),
)
JOINTS = ("and", "but", "because", "so that", "while", "although", "before", "whenever")


def main() -> None:
    """Measure all sizes and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "TOKENIZER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(_measure(*args.measure)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _make_tokenizer(folder / "tokenizer")
        cases = [case for size in args.sizes for case in _cases(folder, size)]
    table = Table(
        "pairs",
        "cache",
        "read + encode s",
        "CPU s",
        "pairs/s",
        "order + collate s",
        "base MiB",
        "grown MiB",
        "file MiB",
    )
    for case in cases:
        shown = (
            "encode_seconds",
            "encode_cpu_seconds",
            "pairs_per_second",
            "steps_seconds",
            "base_mib",
            "grown_mib",
            "encoded_mib",
        )
        table.add_row(str(case["pairs"]), case["cache"], *(f"{case[key]:.1f}" for key in shown))
    Console().print(table)
    print(write_result("data_path", "cpu", cases))


def _cases(folder: Path, size: int) -> Iterator[dict[str, Any]]:
    """A data set of this size, measured without and with its encoding in the cache."""
    path, cache = folder / f"{size}.parquet", folder / f"cache-{size}"
    _write_pairs(path, size)
    command = [sys.executable, __file__, "--measure", str(path), str(folder / "tokenizer")]
    for state in ("empty", "filled"):
        environment = {**os.environ, "TRUEUP_CACHE": str(cache), "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        encoded = sum(file.stat().st_size for file in cache.rglob("*.arrow"))
        data = {"data_mib": path.stat().st_size / 2**20, "encoded_mib": encoded / 2**20}
        yield {"pairs": size, "cache": state, "format": "parquet", **json.loads(done.stdout), **data}


def _sentence(rng: random.Random) -> str:
    def thing() -> str:
        return f"the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"

    return f"{thing()} {rng.choice(VERBS)}s {thing()} {rng.choice(JOINTS)} {thing()} has {rng.randint(2, 99)} parts."


def _pairs(size: int) -> Iterator[dict[str, str]]:
    """Prompts of about a dozen words with two answers of one or two sentences."""
    rng = random.Random(0)
    for number in range(size):
        asked = (
            f"{rng.choice(VERBS)} the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} number {number}: {_sentence(rng)}"
        )
        first, second = (" ".join(_sentence(rng) for _ in range(rng.randint(1, 2))) for _ in range(2))
        yield {"prompt": asked, "chosen": first, "rejected": f"{second} I think."}


def _write_pairs(path: Path, size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pairs = _pairs(size)
    schema = pa.schema([(name, pa.string()) for name in ("prompt", "chosen", "rejected")])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, size, 10 * _ONCE):
            rows = [next(pairs) for _ in range(min(10 * _ONCE, size - start))]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _make_tokenizer(folder: Path) -> None:
    from trueup.models.hub import wrap_tokenizer
    from trueup.models.tokenizer import train_bpe

    texts = (text for pair in _pairs(_ONCE) for text in pair.values())
    wrap_tokenizer(train_bpe(texts, VOCABULARY)).save_pretrained(folder)


def _measure(path: str, tokenizer: str) -> dict[str, Any]:
    """Take the data path as a run of DPO does, in this process."""
    import torch

    from trueup.data.batching import Batching
    from trueup.data.encode import Bounds, encode_pairs
    from trueup.data.order import step_indices
    from trueup.data.read import read_pairs
    from trueup.data.template import make_encoder
    from trueup.models.hub import load_tokenizer

    torch.set_num_threads(1)
    encoder, batching = make_encoder(load_tokenizer(tokenizer)), Batching("shared", MICRO_TOKENS, torch.device("cpu"))
    batching.collate([_warm(encoder)])
    with _Peak() as peak:
        began, busy = time.perf_counter(), time.process_time()
        data = encode_pairs(read_pairs(path), encoder, Bounds(1024))
        data.describe()
        encoded, busy = time.perf_counter(), time.process_time() - busy
        for step in range(STEPS):
            trees = [data.trees[i] for i in step_indices(step, BATCH, len(data), 0)]
            for part in batching.cut(trees):
                batching.collate([trees[i] for i in part])
        stepped = time.perf_counter()
    return {
        "encode_seconds": encoded - began,
        "encode_cpu_seconds": busy,
        "pairs_per_second": len(data) / (encoded - began),
        "steps": STEPS,
        "batch": BATCH,
        "steps_seconds": stepped - encoded,
        "tokens": int(data.trees.sizes.sum()),
        "memory": "RssAnon",
        "base_mib": peak.base,
        "grown_mib": peak.highest - peak.base,
    }


def _warm(encoder: Any) -> Any:
    """A tree made along the whole path, so that what is loaded late is loaded before memory is measured."""
    import pyarrow.dataset  # noqa: F401

    from trueup.data.trees import Tree

    ids = encoder.response("a story")
    return Tree(ids, (ids, ids))


class _Peak:
    """Samples this process's anonymous memory in a thread; ``base`` and ``highest`` are in MiB."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Peak:
        self.base = self.highest = _anonymous_mib()
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLED_EVERY):
            self.highest = max(self.highest, _anonymous_mib())


def _anonymous_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


if __name__ == "__main__":
    main()
