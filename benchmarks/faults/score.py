"""What a run with a fault shows: was it noticed, by what, when, was the right part accused, was it harmful?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from faults.catalogue import Case
from faults.lab import Outcome
from trueup.health.monitor import GRAVITY

CERTAIN = 2.0
"""Seed-to-seed standard deviations below the twins' mean from which on a result is worse."""

LEAST = {"gold": 0.02, "pairs": 0.01, "accuracy": 0.01, "log-likelihood": 0.005}
"""Smallest deviation that is believed: a few twins may agree by chance."""


def alarms(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Rule -> the gravest that any of these runs had it."""
    found: dict[str, int] = {}
    for outcome in outcomes:
        for finding in outcome.findings:
            found[finding["rule"]] = max(found.get(finding["rule"], 0), GRAVITY[finding["severity"]])
    return found


def new_findings(outcome: Outcome, twins: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Findings that no twin has as grave, the gravest first and of these the earliest."""
    known = alarms(twins)
    new = [f for f in outcome.findings if GRAVITY[f["severity"]] > known.get(f["rule"], 0)]
    return sorted(new, key=lambda f: (-GRAVITY[f["severity"]], f["first_step"]))


def score(case: Case, outcome: Outcome, twins: Sequence[Outcome], usual: Sequence[Outcome]) -> dict[str, Any]:
    """The row of a run.

    A note is no detection. A run that the package refuses, in words, is detected by that refusal; whether it accuses
    the right part is then for a reader to say, so ``family_right`` is null. A run that ended in another way, although
    nothing was found, proves nothing, and has ``crash``.

    Args:
        case: what was injected.
        outcome: what came of it.
        twins: healthy runs with the same settings.
        usual: healthy runs of the method with its usual settings, for the scatter from seed to seed.
    """
    fault, found = case.fault, new_findings(outcome, twins)
    serious = [f for f in found if f["severity"] != "note"]
    worst = serious[0] if serious else None
    accepted = {fault.family, *fault.also}
    harm = damage(outcome, twins, usual)
    refused = outcome.error if not any(twin.error for twin in twins) else ""
    return {
        "fault": fault.key,
        "name": fault.name,
        "method": case.method,
        "family": fault.family,
        "severity_of_injection": case.strength,
        "unit": fault.unit,
        "seed": outcome.seed,
        "detected": bool(serious or refused),
        "by_rule": worst["rule"] if worst else ("refusal" if refused else None),
        "by_severity": worst["severity"] if worst else ("refusal" if refused else None),
        "also_by": [f"{f['rule']} ({f['severity']})" for f in found if f is not worst],
        "at_step": min((f["first_step"] for f in serious), default=len(outcome.metrics) if refused else None),
        "family_right": worst["family"] in accepted if worst else None,
        "accused": worst["family"] if worst else None,
        "refused_with": re.sub(r"(?<!\S)/\S*/", "", refused),  # where things lie is nobody's business
        "damage": harm,
        "damaging": bool(fault.invalid) or _is_harmful(outcome, harm),
        "why_damaging": fault.invalid or ("result is worse" if _is_harmful(outcome, harm) else ""),
        "crash": outcome.crash.splitlines()[-1] if outcome.crash and not serious else "",
    }


def _is_harmful(outcome: Outcome, harm: Mapping[str, Any]) -> bool:
    return not outcome.measures or any(entry["deviations"] > CERTAIN for entry in harm.values())


def damage(outcome: Outcome, twins: Sequence[Outcome], usual: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """By how much the finished model is worse than its twins, and in their standard deviations from seed to seed."""
    out = {}
    for name, own in outcome.measures.items():
        healthy = [twin.measures[name] for twin in twins if name in twin.measures]
        spread = [run.measures[name] for run in usual if name in run.measures]
        if not healthy:
            continue
        deviation = max(stdev(spread) if len(spread) > 2 else 0.0, LEAST.get(name, 0.0))
        loss = fmean(healthy) - own
        out[name] = {"value": own, "twins": fmean(healthy), "worse_by": loss, "deviations": loss / deviation}
    return out


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares over the runs that were made; crashed ones are left out and counted."""
    made = [row for row in rows if not row["crash"]]
    harmful = [row for row in made if row["damaging"]]
    seen = [row for row in harmful if row["detected"]]
    judged = [row for row in seen if row["family_right"] is not None]
    steps = sorted(row["at_step"] for row in seen)
    return {
        "runs": len(made),
        "crashed": len(rows) - len(made),
        "faults": len({(row["fault"], row["name"]) for row in made}),
        "damaging": len(harmful),
        "damaging_detected": len(seen),
        "share_of_damaging_detected": _share(len(seen), len(harmful)),
        "share_with_right_family": _share(sum(row["family_right"] for row in judged), len(judged)),
        "detected_before_first_step": _share(sum(step == 0 for step in steps), len(steps)),
        "median_step_of_detection": steps[len(steps) // 2] if steps else None,
        "harmless_detected": sum(row["detected"] for row in made if not row["damaging"]),
        "missed_damaging": [_told(row) for row in harmful if not row["detected"]],
        "wrong_family": [
            f"{_told(row)}: {row['by_rule']}, {row['accused']}" for row in judged if not row["family_right"]
        ],
        "smallest_seen": smallest(made),
        "by_family": {
            family: {
                "damaging": sum(r["family"] == family for r in harmful),
                "detected": sum(r["family"] == family for r in seen),
            }
            for family in sorted({row["family"] for row in harmful})
        },
    }


def smallest(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each fault that has several strengths, in each method: those that were tried and those that were seen."""
    out: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["unit"]:
            entry = out.setdefault(
                f"{row['fault']} {row['name']}, {row['method']}", {"unit": row["unit"], "tried": [], "seen": []}
            )
            entry["tried"].append(row["severity_of_injection"])
            entry["seen"] += [row["severity_of_injection"]] if row["detected"] else []
    return {
        name: {"unit": e["unit"], "tried": sorted(set(e["tried"])), "seen": sorted(set(e["seen"]))}
        for name, e in out.items()
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _told(row: Mapping[str, Any]) -> str:
    strength = f" {row['severity_of_injection']:g} {row['unit']}" if row["unit"] else ""
    return f"{row['fault']} {row['name']}{strength}, {row['method']}"
