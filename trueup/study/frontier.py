"""The points of the frontier, sorted into paths: what was measured, averaged over seeds, joined in the right order."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from trueup.study.schema import Arm, FrontierPoint, Study, baseline, mean_of


@dataclass(frozen=True)
class Stop:
    """A checkpoint averaged over seeds; ``kl`` in nats per response."""

    step: int | None
    coefficient: float | None
    kl: float
    gold: float
    proxy: float


def trained(study: Study) -> list[tuple[Arm, list[FrontierPoint]]]:
    """Return the arms that left the start, with those of their points that are complete."""
    by_arm: dict[str, list[FrontierPoint]] = defaultdict(list)
    for point in study["frontier"]:
        if None not in (point["kl"], point["gold"], point["proxy"]):
            by_arm[point["arm"]].append(point)
    start = baseline(study)["name"]
    return [(arm, by_arm[arm["name"]]) for arm in study["arms"] if arm["name"] in by_arm and arm["name"] != start]


def start_of(study: Study, metric: Literal["gold", "proxy"]) -> float | None:
    """Return where all paths begin: the baseline as measured with the checkpoints, or else its mean in the table."""
    base = baseline(study)
    measured = [v for p in study["frontier"] if p["arm"] == base["name"] and (v := p[metric]) is not None]
    return sum(measured) / len(measured) if measured else mean_of(base, metric)


def paths(points: list[FrontierPoint]) -> list[list[Stop]]:
    """Join what belongs together: the checkpoints of each run by step, or, where runs have but one, all models by KL.

    A stop without a step is a finished model, as a candidate of a sweep is; it lies on no run's way.
    """
    found = stops(points)
    runs: dict[float | None, list[Stop]] = defaultdict(list)
    for stop in found:
        if stop.step is not None:
            runs[stop.coefficient].append(stop)
    if all(len(run) == 1 for run in runs.values()):
        return [sorted(found, key=lambda stop: stop.kl)]
    return [sorted(run, key=lambda stop: stop.step or 0) for run in runs.values()]


def stops(points: list[FrontierPoint]) -> list[Stop]:
    """Average points of one coefficient and step over the seeds."""
    groups: dict[tuple[float | None, int | None], list[FrontierPoint]] = defaultdict(list)
    for point in points:
        groups[point["coefficient"], point["step"]].append(point)
    return [
        Stop(step, coefficient, *(sum(p[key] or 0.0 for p in group) / len(group) for key in ("kl", "gold", "proxy")))
        for (coefficient, step), group in groups.items()
    ]
