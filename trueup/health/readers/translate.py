"""From a log under a tool's names to one under ours; nothing is dropped without being listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trueup.health.findings import Finding
from trueup.health.names import SAME, SETTINGS, TOOLS, Meaning, Tool
from trueup.health.readers.found import Found
from trueup.health.rule import RunLog

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Reading:
    """A log under our names, and what became of each of its own.

    Attributes:
        label: path, and run where a file has several.
        source: the kind of file, and the tool whose names it has.
        log: what rules judge.
        renamed: own name -> (ours, what differs); kept names are here only if something differs.
        unused: own name -> why it has no counterpart here.
        unknown: own names that nobody knows; map them with ``--map``.
        notes: what else to know of how it was read.
        recorded: findings that the run wrote itself.
    """

    label: str
    source: str
    log: RunLog
    renamed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    recorded: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Told:
    """What the user says of a log, over everything that is guessed.

    Attributes:
        method: as in ``RunLog``.
        names: own name -> ours.
        settings: our dotted keys.
    """

    method: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def translate(found: Found, label: str, source: str, told: Told, ours: frozenset[str]) -> Reading:
    """Rename, convert and sort the metrics of a log.

    Args:
        found: the log under its own names.
        label: what to call it.
        source: kind of the file.
        told: by the user.
        ours: names that rules read: one of them in a foreign log is taken to mean what it says here.
    """
    if found.tool == "trueup":
        log = RunLog(found.series, told.method or found.method, {**found.settings, **told.settings})
        return Reading(label, source, log, notes=found.notes, recorded=found.recorded)
    names = {name: _plain(name) for name in found.series}
    tool = TOOLS[found.tool] if found.tool else _tool(base for _, base in names.values())
    method, how = _method(tool, found, told, {base for prefix, base in names.values() if not prefix})
    settings = {**_settings(found.settings, method), **told.settings}
    sorter = _Sorter(tool, method, settings, told.names, ours)
    for name, (prefix, base) in names.items():
        sorter.sort(name, prefix, base, found.series[name])
    title = f"{source}, names of {tool.title}" if tool else f"{source}, no tool's names"
    log = RunLog(sorter.series, method, settings)
    notes = (*found.notes, *how, *sorter.notes)
    return Reading(label, title, log, sorter.renamed, sorter.unused, tuple(sorter.unknown), notes, found.recorded)


class _Sorter:
    """Collects the metrics of one log, each in its place."""

    def __init__(
        self,
        tool: Tool | None,
        method: str | None,
        settings: Mapping[str, Any],
        mapped: Mapping[str, str],
        ours: frozenset[str],
    ) -> None:
        self.tool, self.method, self.settings, self.mapped, self.ours = tool, method, settings, mapped, ours
        self.series: dict[str, Points] = {}
        self.renamed: dict[str, tuple[str, str]] = {}
        self.unused: dict[str, str] = {}
        self.unknown: list[str] = []
        self.notes: list[str] = []

    def sort(self, name: str, prefix: str, base: str, points: Points) -> None:
        """Put one metric where it belongs; ``prefix`` is "eval/" for those of held-out data."""
        meaning = self._meaning(name, base)
        if meaning is None:
            self.unknown.append(name)
        elif meaning.ours is None:
            self.unused[name] = meaning.note
        elif meaning.times and self.settings.get(meaning.times) is None:
            self.unused[name] = f"{meaning.note}: give --set {meaning.times}=VALUE"
        else:
            factor = float(self.settings[meaning.times]) if meaning.times else 1.0
            self._put(name, prefix + (base if meaning.ours == SAME else meaning.ours), meaning.note, points, factor)

    def _meaning(self, name: str, base: str) -> Meaning | None:
        if name in self.mapped:
            if self.mapped[name].removeprefix("eval/") not in self.ours:
                self.notes.append(f"--map {name}={self.mapped[name]}: no rule reads {self.mapped[name]}")
            return Meaning(self.mapped[name], "as told by --map")
        known = self.tool.meaning(base, self.method) if self.tool else None
        return known or (Meaning(SAME) if base in self.ours else None)

    def _put(self, name: str, ours: str, note: str, points: Points, factor: float) -> None:
        if ours in self.series:
            self.unused[name] = f"would be {ours}, which another column already is"
            return
        self.series[ours] = [(step, value * factor) for step, value in points]
        if ours != name or note:
            self.renamed[name] = (ours, note)


def _plain(name: str) -> tuple[str, str]:
    """(``eval/`` or nothing, the name without the prefixes that trainers put before what they log)."""
    for before, prefix in (("eval/", "eval/"), ("eval_", "eval/"), ("train/", "")):
        if name.startswith(before):
            return prefix, name.removeprefix(before)
    return "", name


def _tool(names: Iterable[str]) -> Tool | None:
    """The tool that knows most of the names, whatever the method; the first of several."""
    asked = list(names)
    methods = (None, "dpo", "reward", "kto", "grpo")
    counts = {
        key: max(sum(tool.meaning(name, method) is not None for name in asked) for method in methods)
        for key, tool in TOOLS.items()
    }
    best = max(counts, key=lambda key: counts[key])
    return TOOLS[best] if counts[best] else None


def _method(tool: Tool | None, found: Found, told: Told, names: set[str]) -> tuple[str | None, tuple[str, ...]]:
    """The method, as told, as the file says, or guessed from what is logged; and how it is known if not told."""
    if told.method:
        return told.method, ()
    if found.method:
        return found.method, ()
    guess = next((method for method, signs in (tool.signs if tool else ()) if signs <= names), None)
    if guess is None:
        return None, ("the method is not clear from the names: rules of all methods were asked; --method settles it",)
    beside = " (RLOO logs the same names)" if guess == "grpo" else ""
    return guess, (f"method {guess} guessed from the names{beside}; --method overrides",)


def _settings(given: Mapping[str, Any], method: str | None) -> dict[str, Any]:
    """Settings under our keys; dotted keys are ours already, other tools' that we do not know are left out."""
    table = {"learning_rate": "optim.learning_rate", "max_grad_norm": "optim.max_grad_norm"}
    table |= SETTINGS.get(method or "", {})
    named = {table.get(key, key): value for key, value in given.items() if value is not None}
    return {key: value[0] if _single(value) else value for key, value in named.items() if "." in key}


def _single(value: Any) -> bool:
    """TRL writes ``loss_type`` as a list of one."""
    return isinstance(value, list) and len(value) == 1
