"""The verdict of an explanation in plain sentences: only as far as the intervals carry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trueup.recipes.counterfactuals import Factor
from trueup.recipes.explain_measure import Outcome

ALPHA = 0.05
"""Holm-adjusted p-value under which an effect counts as shown."""

HALF = 0.5
"""A cause must cover this share of the way from what the run shows to what is healthy, on the outcome's scale."""


@dataclass(frozen=True)
class Case:
    """What a verdict is a function of.

    Attributes:
        outcome: what is explained.
        base: its mean in the reruns with the run's own setting.
        factors: name -> factor, for those whose effect is known.
        effects: name -> estimate, low, high, p_holm on the outcome's scale, against the run's own setting.
        gap: the effect of one factor's arm against another's, as estimate, low, high, p.
        doubts: suspects that were not tested; with one of them no cause is named, only the strongest of the tried.
    """

    outcome: Outcome
    base: float
    factors: Mapping[str, Factor]
    effects: Mapping[str, Mapping[str, float]]
    gap: Callable[[str, str], Mapping[str, float]]
    doubts: Sequence[str] = ()


def verdict(case: Case) -> tuple[str | None, str]:
    """The name of the factor that the data support as the cause, or None; and the sentences that say so."""
    cause, words = _judge(case)
    if cause is None or not case.doubts:
        return cause, " ".join([words, *case.doubts])
    return None, " ".join([f"Among what was tried: {words[0].lower()}{words[1:]}", *case.doubts])


def _judge(case: Case) -> tuple[str | None, str]:
    limit = case.outcome.limit
    if not case.outcome.is_trouble(case.base):
        healthy = "too little to be compared" if limit is None else f"and healthy runs stay below {limit:g}"
        return None, (
            f"There is nothing to explain in these reruns: {_amount(case)}, {healthy}. "
            "If the run itself was worse, give more --steps."
        )
    lowering = _lowering(case)
    enough = [name for name in lowering if limit is None or _covered(case, name) >= HALF]
    if not enough:
        return None, _unexplained(case, lowering)
    best, *others = enough
    rival = next((name for name in others if not case.gap(best, name)["p"] < ALPHA), None)
    if rival is not None:
        return None, (
            f"Two causes of {_amount(case)} cannot be told apart: {case.factors[best].noun} and "
            f"{case.factors[rival].noun}. {_capital(_told(case, best))} and {_told(case, rival)} do not differ beyond "
            "chance; more --seeds would tell."
        )
    return best, " ".join(_explained(case, best))


def size(effect: Mapping[str, Any], scale: str) -> str:
    """An effect with its interval: ``÷6.10 [4.01, 9.20]``, ``x1.41 [1.10, 1.80]`` or ``-0.31 [-0.40, -0.22]``."""
    values = [effect[name] for name in ("estimate", "low", "high")]
    if any(value is None or not math.isfinite(value) for value in values):
        return "not known"
    if scale != "ratio":
        return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*values)
    if values[0] < 1:
        values = [1 / effect[name] for name in ("estimate", "high", "low")]
    middle, low, high = (f"{value:.0f}" if value >= 10 else f"{value:.2f}" for value in values)
    return f"{'x' if effect['estimate'] >= 1 else '÷'}{middle} [{low}, {high}]"


def evidence(measured: Mapping[str, float]) -> list[str]:
    """What the run's own setting shows of a DPO run without any comparison (rules D03, D04, D08)."""
    support, separable = measured["reference/support"], measured["reference/separability"]
    share, correlation = measured["margin/chosen_share"], measured["margin/length_correlation"]
    side = f"{share:.0%} of the margin is the chosen side rising, the rest the rejected side falling."
    if share < 0:
        side = "The chosen side falls as well; the margin is the rejected side falling further."
    lacking = (
        "it has no support there (rule D03)" if support >= 0.8 else "short of the 0.8 at which it has no support (D03)"
    )
    telling = "the source alone tells them apart (D04)" if not 0.05 <= separable <= 0.95 else "they can be confused"
    driven = "the margin follows length (D08)" if correlation > 0.7 else "length does not drive the margin"
    return [
        f"Before any update the reference gives held-out chosen text {support:.2f} ln V nats per token: {lacking}.",
        f"The reference alone rates chosen text above rejected text in {separable:.0%} of comparisons: {telling}.",
        side,
        f"The margin's correlation with the chosen length is {correlation:.2f}: {driven}.",
    ]


def _lowering(case: Case) -> list[str]:
    """Candidates that are shown to lower the outcome, the strongest first."""
    shown = [
        name
        for name, effect in case.effects.items()
        if case.factors[name].candidate and effect["p_holm"] < ALPHA and effect["estimate"] < _nothing(case)
    ]
    return sorted(shown, key=lambda name: case.effects[name]["estimate"])


def _covered(case: Case, name: str) -> float:
    """The share of the way from the run's value to the limit that a factor alone goes."""
    assert case.outcome.limit is not None
    estimate = case.effects[name]["estimate"]
    if case.outcome.scale == "ratio":
        return math.log(estimate) / math.log(case.outcome.limit / abs(case.base))
    return estimate / (case.outcome.limit - case.base)


def _explained(case: Case, best: str) -> list[str]:
    healthy = f", where healthy runs stay below {case.outcome.limit:g}" if case.outcome.limit is not None else ""
    cause = case.factors[best].noun
    does = "lowers" if case.outcome.limit is None else "explains"
    most = " most" if case.outcome.limit is None else ""
    out = [f"What {does} {_amount(case)}{most} is {cause}: {_told(case, best)} leaves {_left(case, best)}{healthy}."]
    if case.factors[best].note:
        out.append(case.factors[best].note)
    batch = "batch_size"
    if batch != best and batch in case.effects:
        out.append(_about_batch(case, case.effects[batch]))
    others = [name for name in _lowering(case) if name not in (best, batch)]
    if others:
        listed = ", ".join(_told(case, name) for name in others)
        out.append(f"Also lower, and each less than that: {listed}.")
    return out


def _about_batch(case: Case, effect: Mapping[str, float]) -> str:
    """The usual suspect gets a sentence of its own."""
    factor, how = case.factors["batch_size"], size(effect, case.outcome.scale)
    if not effect["p_holm"] < ALPHA:
        return (
            f"{_capital(factor.label)} changes it by no more than chance ({how}), so the batch size is not the cause."
        )
    if effect["estimate"] > _nothing(case):
        return f"{_capital(factor.label)} makes it larger ({how}), so the batch size is not the cause."
    return f"{_capital(factor.label)} makes it smaller ({how}), and is not the larger effect."


def _unexplained(case: Case, lowering: Sequence[str]) -> str:
    if not lowering:
        return f"None of the tried factors lowers {_amount(case)} beyond chance."
    text = f"None of the tried factors explains {_amount(case)}"
    best = lowering[0]
    limit = f", and healthy runs stay below {case.outcome.limit:g}"
    return text + f": the strongest is {_told(case, best)}, which leaves {_left(case, best)}{limit}."


def _left(case: Case, name: str) -> str:
    """What a factor leaves of the outcome."""
    estimate = case.effects[name]["estimate"]
    if case.outcome.scale == "difference":
        return f"{case.base + estimate:.2g}"
    left = abs(case.base) * estimate
    # Values under the floor count as the floor.
    return f"{'at most ' if left < 1.05 * case.outcome.floor else ''}{left:.2g}"


def _told(case: Case, name: str) -> str:
    """A factor with its effect."""
    return f"{case.factors[name].label} ({size(case.effects[name], case.outcome.scale)})"


def _amount(case: Case) -> str:
    return f"the {case.outcome.label} of {case.outcome.amount(case.base)}"


def _nothing(case: Case) -> float:
    """The estimate of no effect."""
    return 1.0 if case.outcome.scale == "ratio" else 0.0


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
