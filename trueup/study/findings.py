"""Findings as readers want them: the gravest first, one entry for a rule and arm, with the evidence of every run."""

from __future__ import annotations

from dataclasses import dataclass

from trueup.study.format import DASH, fixed
from trueup.study.rows import SEVERITIES
from trueup.study.schema import REWARD_MODEL, Study, StudyFinding, labels


@dataclass(frozen=True)
class Sighting:
    """One run in which the rule fired."""

    run: str
    evidence: str


@dataclass(frozen=True)
class Entry:
    """A rule that fired in an arm, or in reward models: what it means, what to do, and where it was seen."""

    severity: str
    rule: str
    arm: str
    message: str
    remedy: str
    reference: str
    seeds: str
    sightings: list[Sighting]


def entries(study: Study) -> list[Entry]:
    """Return the findings, fatal ones first; the message is that of the first run, the evidence that of all."""
    groups: dict[tuple[str, str, str], list[StudyFinding]] = {}
    for finding in sorted(study["findings"], key=lambda finding: SEVERITIES.index(finding["severity"])):
        groups.setdefault((finding["severity"], finding["rule"], finding["arm"]), []).append(finding)
    named = labels(study)
    return [
        Entry(
            severity=severity,
            rule=rule,
            arm=named.get(arm, arm),
            message=found[0]["message"],
            remedy=found[0]["remedy"],
            reference=found[0]["reference"] or "",
            seeds=_seeds([finding["seed"] for finding in found]),
            sightings=[Sighting(_run(finding), _words(finding["evidence"])) for finding in found],
        )
        for (severity, rule, arm), found in groups.items()
    ]


def about_reward_models(study: Study) -> list[Entry]:
    """Return the findings about reward models alone, which belong to no row of the main table."""
    return entries({**study, "findings": [f for f in study["findings"] if f["arm"] == REWARD_MODEL]})


def _seeds(seeds: list[int | None]) -> str:
    """Name the seeds: a rule may fire twice in one run."""
    if None in seeds:
        return "all seeds"
    named = [str(seed) for seed in dict.fromkeys(seeds)]
    return f"seed{'s' if len(named) > 1 else ''} {', '.join(named)}"


def _run(finding: StudyFinding) -> str:
    seed = "all seeds" if finding["seed"] is None else f"seed {finding['seed']}"
    return seed if finding["first_step"] is None else f"{seed}, from step {finding['first_step']}"


def _words(evidence: object) -> str:
    """Write evidence, which rules give as text, numbers, lists or named values, as one line."""
    if isinstance(evidence, dict):
        return ", ".join(f"{str(key).replace('_', ' ')} {_words(value)}" for key, value in evidence.items())
    if isinstance(evidence, list):
        return ", ".join(_words(value) for value in evidence)
    if isinstance(evidence, float):
        return fixed(evidence)
    return DASH if evidence is None else str(evidence)
