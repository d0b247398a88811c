"""What all benchmarks share: the environment they record, where their results go, and how a contender is measured."""

from __future__ import annotations

import copy
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from trueup.models.linear import Linear
from trueup.runtime.folder import environment, now

T = TypeVar("T")

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, device: str, cases: list[dict[str, Any]], **more: Any) -> Path:
    """Write ``results/NAME.DEVICE.json`` with the command, date, versions, machine and ``more`` beside the cases."""
    facts = environment()
    result = {
        # Where things lie on this machine is nobody's business: a path is written as its last part.
        "command": " ".join(["python", *(Path(part).name if Path(part).is_absolute() else part for part in sys.argv)]),
        "date": now(),
        "versions": {key: value for key, value in facts.items() if key not in ("machine", "commit")},
        "commit": facts["commit"],
        "machine": facts["machine"],
        **more,
        "cases": cases,
    }
    path = RESULTS / f"{name}.{device}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def other_results(name: str, device: str, cases: Sequence[str], peers: Sequence[str]) -> list[dict[str, Any]]:
    """What the result has of cases and settings that are not run now; ``peer`` is "trl VERSION, SETTING"."""
    file = RESULTS / f"{name}.{device}.json"
    if not file.exists():
        return []
    rerun = {(case, peer) for case in cases for peer in peers}
    return [
        row
        for row in json.loads(file.read_text())["cases"]
        if (row["data"], row["peer"].partition(", ")[2]) not in rerun
    ]


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """What ``run`` returns, and the seconds that this process computed for it: what else the machine did is not in."""
    began = time.process_time()
    out = run()
    return out, time.process_time() - began


def cpu_seconds(run: Callable[[], Any]) -> float:
    """The seconds of ``timed`` alone."""
    return timed(run)[1]


def counted(run: Callable[[], T]) -> tuple[T, float]:
    """What ``run`` returns, and the operations of its matrix products; attention scores are counted for nobody.

    Counting costs time in Python for every call: nothing beside seconds of matrix products, but much where there are
    many small ones.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # The counter does not know oneDNN's linear layer, to which `trueup/ops/products` sends large products.
    onednn = {torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0]}
    with FlopCounterMode(display=False, custom_mapping=onednn) as counter:
        out = run()
    return out, float(counter.get_total_flops())


def spread(ratios: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def gradient_difference(ours: Any, peer: Any) -> float:
    """The largest difference of any parameter's gradient, relative to that parameter's gradient norm."""
    named = dict(peer.named_parameters())
    worst = 0.0
    for name, own in ours.named_parameters():
        other = named[name].grad
        worst = max(worst, float((own.grad - other).norm() / other.norm()))
    return worst


def measure_apart(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script in a fresh process and return the JSON object that it prints last."""
    done = subprocess.run(
        [sys.executable, script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def as_transformers_has_it(model: Any) -> Any:
    """A copy of a model of ours with PyTorch's own linear layers: what a peer is given."""
    copied = copy.deepcopy(model)
    for layer in copied.modules():
        if type(layer) is Linear:
            layer.__class__ = nn.Linear
    return copied


def high_water_mark() -> float:
    """Peak resident memory of this process so far, bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) * 1024


def memory(peaks: dict[str, float], peer: str) -> dict[str, Any]:
    """Peaks in GiB and their ratio, of ``ours`` and a peer by name; null where they were not measured."""
    if not peaks:
        return {"ratio_peak_memory": None, "peak_gib": None}
    gib = {"ours": peaks["ours"] / 2**30, "peer": peaks[peer] / 2**30}
    return {"ratio_peak_memory": gib["ours"] / gib["peer"], "peak_gib": gib}
