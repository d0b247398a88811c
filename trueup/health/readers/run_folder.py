"""A run folder of trueup: metrics, settings, method, and what the run found itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trueup.health.findings import Finding
from trueup.health.readers.files import json_lines, json_value, yaml_value
from trueup.health.readers.found import Found, from_rows


def recognises(path: Path) -> bool:
    """Does it have a journal, beside the configuration or manifest that a run writes first?"""
    folder = path.parent if path.name == "metrics.jsonl" else path
    named = (folder / "manifest.json").is_file() or (folder / "config.yaml").is_file()
    return named and (folder / "metrics.jsonl").is_file()


def read(path: Path) -> tuple[Found, ...]:
    """Read the journal (its null is a number that is not finite), settings as dotted keys, and recorded findings."""
    folder = path.parent if path.name == "metrics.jsonl" else path
    manifest = json_value(folder / "manifest.json") if (folder / "manifest.json").is_file() else {}
    config = yaml_value(folder / "config.yaml") if (folder / "config.yaml").is_file() else {}
    findings = json_lines(folder / "findings.jsonl") if (folder / "findings.jsonl").is_file() else []
    series, notes = from_rows(json_lines(folder / "metrics.jsonl"), null_is_nan=True)
    settings = {key: value for key, value in _leaves(config) if value is not None}
    if "loss" in manifest:
        settings.setdefault("preference.loss", manifest["loss"])
    recorded = tuple(Finding.from_row(row) for row in findings)
    return (Found(series, "", "trueup", manifest.get("method"), settings, notes, recorded),)


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
