"""What the main table says, arm by arm, the same on the page, in the pull request and in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from trueup.study.format import DASH, duration, fixed, interval, p_value, scaled, signed, whole
from trueup.study.schema import REWARD_MODEL, Arm, Contrast, Study, StudyFinding, labels

SEVERITIES = ("fatal", "warning", "note")


@dataclass(frozen=True)
class Column:
    """A metric as a column: its key in ``study.json``, its heading, and what the heading means."""

    metric: str
    title: str
    meaning: str


@dataclass(frozen=True)
class Cell:
    """A number and, where it has one, its interval, both as text."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class ArmRow:
    """One arm of the main table; ``cells`` are in the order of the columns."""

    label: str
    method: str
    setting: str
    cells: list[Cell]
    ranks: str
    findings: str


@dataclass(frozen=True)
class ContrastRow:
    """One comparison as text: the difference ``a - b`` with its interval and verdict."""

    a: str
    b: str
    metric: str
    estimate: Cell
    p: str
    p_holm: str
    verdict: str
    n_needed: str


COLUMNS = (
    Column("gold", "Gold", "the true score of the responses; higher is better"),
    Column("proxy", "Proxy", "the training reward model's score; it is what was optimised and never decides"),
    Column("kl/sequence", "KL / sequence", "distance from the reference on the arm's own responses, nats per response"),
    Column("kl/token", "KL / token", "the same distance per token, nats"),
    Column("length", "Length", "tokens per response"),
    Column("eos_rate", "EOS rate", "share of responses that end by themselves"),
    Column("truncation_rate", "Truncated", "share of responses cut at the length limit"),
)


def shown_columns(study: Study) -> list[Column]:
    """Return the columns that at least one arm has, the primary metric first."""
    measured = {metric for arm in study["arms"] for metric in arm["metrics"]}
    primary = study["primary_metric"]
    known = [column for column in COLUMNS if column.metric in measured]
    if primary in measured and primary not in [column.metric for column in known]:
        return [Column(primary, primary.capitalize(), "the metric that decides"), *known]
    return sorted(known, key=lambda column: column.metric != primary)


def part_columns(study: Study) -> list[Column]:
    """Return the named parts that the gold score is the sum of."""
    names = {metric for arm in study["arms"] for metric in arm["metrics"] if metric.startswith("gold/")}
    return [Column(name, name.removeprefix("gold/").replace("_", " "), "a part of gold") for name in sorted(names)]


def arm_rows(study: Study, columns: list[Column]) -> list[ArmRow]:
    """Return the table's rows in the order of the study."""
    return [
        ArmRow(
            label=arm["label"],
            method=arm["method"],
            setting=arm["setting"],
            cells=[_cell(arm, column.metric) for column in columns],
            ranks=_ranks(study, arm["name"]),
            findings=_counted(f for f in study["findings"] if f["arm"] == arm["name"]),
        )
        for arm in study["arms"]
    ]


def _cell(arm: Arm, metric: str) -> Cell:
    measured = arm["metrics"].get(metric)
    if measured is None:
        return Cell(DASH)
    return Cell(fixed(measured["mean"]), interval(measured["low"], measured["high"]))


def _ranks(study: Study, arm: str) -> str:
    ranks = study["rank_sets"].get(study["primary_metric"], {}).get(arm)
    if ranks is None:
        return DASH
    best, worst = ranks
    return str(best) if best == worst else f"{best}–{worst}"


def reward_model_findings(study: Study) -> dict[int, str]:
    """Return for each seed what health rules saw in its reward model, counted as for an arm."""
    found = [f for f in study["findings"] if f["arm"] == REWARD_MODEL]
    seeds = [row["seed"] for row in study["reward_model"]["per_seed"]]
    return {seed: _counted(f for f in found if f["seed"] == seed) for seed in seeds}


def _counted(findings: Iterable[StudyFinding]) -> str:
    """Count rules, not runs: a rule that fired in every seed of an arm is one finding."""
    fired = {(f["severity"], f["rule"]) for f in findings}
    counts = Counter(severity for severity, _ in fired)
    words = [f"{counts[s]} {s}{'s' if counts[s] > 1 and s != 'fatal' else ''}" for s in SEVERITIES if counts[s]]
    return ", ".join(words) or "none"


def contrast_rows(study: Study) -> list[ContrastRow]:
    """Return the comparisons, those of the primary metric first."""
    named = labels(study)
    ordered = sorted(study["contrasts"], key=lambda contrast: contrast["metric"] != study["primary_metric"])
    return [_contrast_row(contrast, named) for contrast in ordered]


def _contrast_row(contrast: Contrast, named: dict[str, str]) -> ContrastRow:
    return ContrastRow(
        a=named[contrast["a"]],
        b=named[contrast["b"]],
        metric=contrast["metric"],
        estimate=Cell(signed(contrast["estimate"]), interval(contrast["low"], contrast["high"])),
        p=p_value(contrast["p"]),
        p_holm=p_value(contrast["p_holm"]),
        verdict=contrast["verdict"],
        n_needed=whole(contrast["n_needed"]),
    )


def budget_rows(study: Study) -> list[tuple[str, list[str]]]:
    """Return for each arm its labels, prompts, tokens, FLOPs and time as text."""
    writers = {"labels": whole, "prompts": whole, "tokens": scaled, "flops": scaled, "seconds": duration}
    return [(arm["label"], [write(arm["budgets"][key]) for key, write in writers.items()]) for arm in study["arms"]]


def settings_table(study: Study) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return all setting names in order of appearance, and for each arm its values as text."""
    names = list(dict.fromkeys(key for arm in study["arms"] for key in arm["settings"]))
    rows = [(arm["label"], [_setting(arm["settings"].get(name)) for name in names]) for arm in study["arms"]]
    return names, rows


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return DASH if value is None else f"{value:g}" if isinstance(value, float) else str(value)
