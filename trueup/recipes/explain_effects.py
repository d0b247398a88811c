"""From the outcomes of the arms to effects with intervals: one factor at a time, then the strongest together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any

from trueup.recipes.counterfactuals import TOGETHER, Factor
from trueup.recipes.explain_measure import Outcome
from trueup.recipes.explain_runs import BASE, Outcomes, arm_name
from trueup.stats.factorial import DesignEffect, against_first, between, factorial_effects
from trueup.stats.multiple import holm

Arms = Mapping[str, Sequence[Outcomes]]
"""Arm -> the outcomes of its replicates."""


def single_effects(arms: Arms, controls: Arms, outcome: Outcome) -> dict[str, Any]:
    """Effects of every arm against the run's own setting on one outcome.

    Args:
        arms: the run's own setting and the candidates, whose error is pooled.
        controls: arms that may vary otherwise: each is compared by its own replicates alone, outside Holm's family.
        outcome: what is compared.

    Returns:
        ``scale``, ``floored`` (values within the outcome's floor), and ``effects``: arm -> estimate, low, high, p and
        Holm's p. On the scale ``ratio`` estimate and bounds are ratios.
    """
    everything = [_number(found.get(outcome.name)) for arm in (*arms.values(), *controls.values()) for found in arm]
    floored = sum(abs(value) < outcome.floor for value in everything) if outcome.scale == "ratio" else 0
    effects = against_first(_table(arms, outcome), _names(arms)) if len(arms) > 1 else []
    adjusted = holm([effect.p for effect in effects])
    told = {e.name: {**_told(e, outcome), "p_holm": p} for e, p in zip(effects, adjusted, strict=True)}
    for name, control in controls.items():
        (effect,) = against_first(_table({BASE: arms[BASE], name: control}, outcome), (BASE, name))
        told[name] = {**_told(effect, outcome), "p_holm": effect.p}
    return {"scale": outcome.scale, "floored": floored, "effects": told}


def gap(arms: Arms, outcome: Outcome, first: str, second: str) -> dict[str, Any]:
    """One candidate against another, with the error and on the scale of ``single_effects``."""
    return _told(between(_table(arms, outcome), _names(arms), first, second), outcome)


def strongest(
    factors: Sequence[Factor], effects: Mapping[str, Any], outcome: Outcome, most: int = TOGETHER
) -> list[Factor]:
    """The candidates with the largest effects, either way, that can be changed together."""
    known = [factor for factor in factors if factor.candidate and factor.name in effects]
    size = {f.name: abs(_additive(effects[f.name]["estimate"], outcome)) for f in known}
    out: list[Factor] = []
    for factor in sorted(known, key=lambda factor: -size[factor.name]):
        if len(out) < most and all(factor.fits(other) for other in out):
            out.append(factor)
    return out


def cells(factors: Sequence[Factor]) -> list[list[Factor]]:
    """Every combination of the factors, the empty one first."""
    return [
        [factor for factor, on in zip(factors, levels, strict=True) if on]
        for levels in product((0, 1), repeat=len(factors))
    ]


def factorial(arms: Arms, factors: Sequence[Factor], outcome: Outcome) -> dict[str, Any]:
    """Main effects and two-way interactions of the factors from all arms of their factorial."""
    settings, values, blocks = [], [], []
    for some in cells(factors):
        for replicate, found in enumerate(arms[arm_name(some)]):
            settings.append([factor in some for factor in factors])
            values.append(_value(found, outcome))
            blocks.append(replicate)
    effects = factorial_effects(settings, values, [factor.name for factor in factors], blocks)
    return {effect.name: _told(effect, outcome) for effect in effects}


def typical(arm: Sequence[Outcomes], outcome: Outcome) -> float:
    """The mean of an arm's replicates; NaN where one of them has no such value."""
    return fmean(_number(found.get(outcome.name)) for found in arm)


def _names(arms: Arms) -> list[str]:
    """The arms, the run's own setting first."""
    return [BASE, *(name for name in arms if name != BASE)]


def _table(arms: Arms, outcome: Outcome) -> list[list[float]]:
    """Replicates x arms, as they are compared."""
    names = _names(arms)
    return [[_value(arms[name][replicate], outcome) for name in names] for replicate in range(len(arms[BASE]))]


def _value(found: Outcomes, outcome: Outcome) -> float:
    value = _number(found.get(outcome.name))
    return math.log(max(abs(value), outcome.floor)) if outcome.scale == "ratio" else value


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _additive(estimate: float, outcome: Outcome) -> float:
    return math.log(estimate) if outcome.scale == "ratio" else estimate


def _told(effect: DesignEffect, outcome: Outcome) -> dict[str, Any]:
    told = {name: getattr(effect, name) for name in ("estimate", "low", "high", "p", "df")}
    if outcome.scale == "ratio":
        told |= {name: math.exp(told[name]) for name in ("estimate", "low", "high")}
    return told
