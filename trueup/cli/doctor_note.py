"""A diagnosis in the terminal, as a colleague would write it: the worst first, what was in order, the gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from trueup.cli.console import open_console
from trueup.health.doctor import Diagnosis
from trueup.health.findings import Finding
from trueup.health.readers.translate import Reading
from trueup.health.rules_foreign.score_table import ScoreTable, shared

_COLOURS = {"fatal": "bold red", "warning": "yellow", "note": "cyan"}

Say = Callable[..., None]


def tell(
    logs: Sequence[tuple[Reading, Diagnosis]],
    together: Sequence[Finding],
    tables: Sequence[ScoreTable],
    judged: Sequence[Finding],
    console: Console | None = None,
) -> None:
    """Print everything on stderr."""
    console = console or open_console(stderr=True)

    def say(text: str = "", style: str = "", indent: int = 0) -> None:
        lines = Text(text, style=style).wrap(console, max(console.width - indent, 20))
        for line in lines:
            line.pad_left(indent)
            console.print(line, soft_wrap=True)
        if not text:
            console.print()

    for reading, diagnosis in logs:
        _log(say, reading, diagnosis)
        say()
    if together:
        say(f"The {len(logs)} logs together", "bold")
        _findings(say, together, of_a_run=False)
        say()
    if tables:
        _scores(say, tables, judged)


def _log(say: Say, reading: Reading, diagnosis: Diagnosis) -> None:
    first, last, count = diagnosis.steps
    known = "method not known" if diagnosis.method is None else diagnosis.method
    say(reading.label, "bold")
    say(f"{reading.source}; {known}; {count} logged steps, {first} to {last}; {len(diagnosis.metrics)} metrics")
    for note in reading.notes:
        say(note, "dim")
    _findings(say, diagnosis.findings, of_a_run=True)
    _rules(say, diagnosis)
    _names(say, reading)


def _findings(say: Say, findings: Sequence[Finding], of_a_run: bool) -> None:
    for finding in findings:
        when = f", since step {finding.first_step}" if of_a_run else ""
        say(f"\n{finding.severity}: {finding.rule}{when}", _COLOURS[finding.severity])
        say(finding.message, indent=2)
        say(f"What to do: {finding.remedy}", indent=2)
        if finding.reference:
            say(f"({finding.reference}; docs/diagnoses.md)", "dim", indent=2)
    if not findings:
        say("\nNothing was found.", "green")


def _rules(say: Say, diagnosis: Diagnosis) -> None:
    if diagnosis.quiet:
        say("\nLooked at and found in order", "bold")
        say(", ".join(diagnosis.quiet), indent=2)
    if diagnosis.short:
        say("\nLooked at, with too few values or an unknown setting to judge", "bold")
        say(", ".join(diagnosis.short), indent=2)
    if diagnosis.unjudged and diagnosis.method is None:
        say(f"\n{len(diagnosis.unjudged)} rules could not be judged; --method names those that matter", "bold")
    elif diagnosis.unjudged:
        say("\nCould not be judged, for want of", "bold")
        for lacks, names in _by_lack(diagnosis).items():
            say(f"{lacks}: {', '.join(names)}", indent=2)


def _names(say: Say, reading: Reading) -> None:
    if reading.renamed:
        say("\nTaken for", "bold")
        for name, (ours, note) in reading.renamed.items():
            as_ours = "itself" if ours == name else ours
            say(f"{name}: {as_ours}{f' ({note})' if note else ''}", indent=2)
    if reading.unused:
        say("\nKnown, and of no use here", "bold")
        for why, names in _by_reason(reading).items():
            say(f"{', '.join(names)} ({why})", indent=2)
    if reading.unknown:
        say("\nUnknown; say what they are with --map NAME=OURS (docs/metrics.md)", "bold yellow")
        say(", ".join(reading.unknown), indent=2)


def _by_lack(diagnosis: Diagnosis) -> dict[str, list[str]]:
    """What is missing -> the rules that miss it."""
    rules: dict[str, list[str]] = {}
    for rule in diagnosis.unjudged:
        rules.setdefault(", or ".join(" and ".join(names) for names in rule.lacks), []).append(rule.rule)
    return rules


def _by_reason(reading: Reading) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, why in reading.unused.items():
        reasons.setdefault(why, []).append(name)
    return reasons


def _scores(say: Say, tables: Sequence[ScoreTable], judged: Sequence[Finding]) -> None:
    say(f"Scores of {len(tables)} arms on {len(shared(tables))} common prompts", "bold")
    for table in tables:
        draws = "one draw" if table.draws == 1 else f"{table.draws} draws"
        say(f"{table.arm}: mean {table.mean:.2f} over {len(table.scores)} prompts, {draws} each", indent=2)
    if len(tables) < 2:
        say("One arm alone: give the files of the others beside it to compare them.", indent=2)
    elif not shared(tables):
        say("They have no prompt in common: nothing can be compared.", "yellow", indent=2)
    _findings(say, judged, of_a_run=False)
