"""What a fault of the benchmark is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from faults.stage import Stage
from trueup.health.rule import Family

Inject = Callable[[Stage, float], None]
"""Puts the fault into a run at a strength."""


@dataclass(frozen=True)
class Fault:
    """A fault of the catalogue of silent failures, as it is put into a run.

    Attributes:
        key: number in the catalogue; of several together, joined with ``+``.
        name: what is wrong.
        methods: verbs that it is put into.
        family: where it lies.
        inject: puts it there.
        strengths: how strong it is, ascending; in ``unit``.
        unit: of the strengths; empty for a fault that is there or not.
        also: other families that a reader would accept, because the fault sits between the two.
        invalid: why a run that has it is worthless however good its model is; empty if the damage must show.
        settings: settings of the run and of its twin, by dotted key.
    """

    key: str
    name: str
    methods: tuple[str, ...]
    family: Family
    inject: Inject
    strengths: tuple[float, ...] = (1.0,)
    unit: str = ""
    also: tuple[Family, ...] = ()
    invalid: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
