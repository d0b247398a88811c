"""A data audit in the terminal: findings, the worst first, then what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from trueup.cli.console import open_console
from trueup.health.findings import Finding

_COLOURS = {"fatal": "bold red", "warning": "yellow", "note": "cyan"}
_NAMES = 42  # the width of what was measured


def draw(card: Mapping[str, Any], findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print the audit on stdout; the file's name is shortened in places."""
    console = console or open_console()

    def say(text: str, style: str = "") -> None:
        console.print(Text(text.replace(card["file"], Path(card["file"]).name), style=style), soft_wrap=True)

    console.print(Text(f"{card['file']}: {card['rows']} rows as {card['shape']}"), soft_wrap=True)
    for finding in findings:
        say(f"\n{finding.severity}: {finding.rule}", _COLOURS[finding.severity])
        say(finding.message)
        if places := list(_places(finding.evidence)):
            say(f"for example: {', '.join(places)}")
        say(finding.remedy, "italic")
    if not findings:
        say("\nNothing was found.")
    say("\nmeasured", "bold")
    for name, value in _measured(card):
        say(f"{name:{_NAMES}}{value}")


def _places(evidence: Any, most: int = 3) -> Iterator[str]:
    """The first places of every tally inside."""
    if isinstance(evidence, Mapping):
        yield from evidence.get("places", [])[:most]
        for value in evidence.values():
            yield from _places(value, most)


def _measured(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What an audit looked at, whether or not something was found."""
    repeats, contradictions = card["repeats"], card["contradictions"]
    yield "different prompts", str(repeats["repeated_prompts"]["prompts"])
    yield "rows that repeat a row", _count(repeats["identical_rows"])
    yield "rows that contradict a row", _count(contradictions["reversed"])
    if card["likeness"]:
        yield "sides equal but for space and case", _count(card["likeness"]["near_identical"])
        yield "one side begins the other", _count(card["likeness"]["begins_with"])
        yield "common beginning of the sides (median)", f"{card['likeness']['shared_start']:.0%} of the longer"
    yield "responses with chat markers", _count(card["markers"])
    if (bias := card["length_bias"]) is not None:
        yield (
            f"{bias['unit']}, wanted against unwanted",
            (
                f"mean {bias['wanted']['mean']:.0f} against {bias['unwanted']['mean']:.0f}, "
                f"median {bias['wanted']['median']:.0f} against {bias['unwanted']['median']:.0f}"
            ),
        )
        yield "right by 'the longer wins'", _interval(bias["longer_wins"])
        yield "Cliff's delta of the lengths", _interval(bias["cliffs_delta"], "+.2f")
    if (found := card["separability"]) is not None:
        yield "right by text pieces, prompt unseen", _interval(found["accuracy"])
    elif card["kind"] != "examples":
        yield "right by text pieces, prompt unseen", "not tried: too few rows of their own"
    if (found := card.get("overlap")) is not None:
        exact, near, passage = (_count(found[name]) for name in ("exact", "near", "passage"))
        yield "evaluation prompts in training", f"{exact} the same, {near} nearly, {passage} by a passage"
    yield from _tokens(card)


def _tokens(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "lengths" not in card:
        return
    lengths, template = card["lengths"], card["template"]
    for name, found in lengths["percentiles"].items():
        label = "prompt + longest response" if name == "row" else name
        yield f"tokens: {label}", "  ".join(f"{q} {value:.0f}" for q, value in found.items())
    yield "left out by max_length", ", ".join(f"{limit}: {share:.1%}" for limit, share in lengths["left_out"].items())
    yield "model's context", str(lengths["context"] or "not known")
    yield "terminator", template["terminator"]
    yield "template before a prompt", repr(template["added"]["before"])
    yield "template after a prompt", repr(template["added"]["after"])


def _count(found: Mapping[str, Any]) -> str:
    return f"{found['count']} ({found['share']:.1%})" if found["count"] else "0"


def _interval(found: Mapping[str, Any], shape: str = ".1%") -> str:
    if found["estimate"] is None:
        return "no answer"
    if found["low"] is None:
        return format(found["estimate"], shape)
    return f"{found['estimate']:{shape}} [{found['low']:{shape}}, {found['high']:{shape}}]"
