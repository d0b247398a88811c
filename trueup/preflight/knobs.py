"""Settings of the loss that do nothing: each is changed, and the loss or its gradient must notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from trueup.errors import TrueupError
from trueup.health.findings import Finding
from trueup.preflight.outcome import Outcome, made
from trueup.preflight.recomputed import moved_away
from trueup.preflight.slope import measure_loss, measure_slope
from trueup.preflight.subject import Sample, Subject
from trueup.train.kl_control import KlControl
from trueup.train.objectives.grpo import GrpoObjective
from trueup.train.objectives.ppo import PpoObjective
from trueup.train.objectives.preference import PreferenceObjective
from trueup.train.objectives.reward import RewardObjective
from trueup.train.objectives.unpaired import UnpairedObjective

CHECK = "settings that must matter"
REFERENCE = "probe P10 of the catalogue of silent failures; F39, F54, F67, F103"


def check_knobs(subject: Subject, sample: Sample) -> Outcome | None:
    """Change every number of the objective, at a policy that has moved from its reference, both ways."""
    knobs = knobs_of(subject.objective)
    if not knobs:
        return None
    batches = [moved_away(sample.some, sign) for sign in (1.0, -1.0)]
    dead = [name for name, changed in knobs.items() if not any(_shows(subject, changed, batch) for batch in batches)]
    told = f"{len(knobs) - len(dead)} of {len(knobs)} change the loss: {', '.join(knobs)}"
    return made(CHECK, told, [_inert(dead)] if dead else [])


def knobs_of(objective: Any) -> dict[str, Any]:
    """Name of every number that the objective was given -> the same objective with that number changed."""
    return _KNOBS[type(objective)](objective) if type(objective) in _KNOBS else {}


def _pairs(objective: PreferenceObjective) -> dict[str, Any]:
    loss, out = objective.loss, {}
    for i, part in enumerate(loss.parts):
        label = f"{part.loss.name}." if len(loss.parts) > 1 else ""
        changes: dict[str, dict[str, Any]] = {
            f"{label}{name}": {"settings": new} for name, new in _changed(part.settings).items()
        }
        if len(loss.parts) > 1:
            changes[f"{label}weight"] = {"weight": _other(part.weight)}
        for name, change in changes.items():
            parts = tuple(replace(p, **change) if j == i else p for j, p in enumerate(loss.parts))
            out[name] = replace(objective, loss=replace(loss, parts=parts))
    if loss.alpha is not None:
        out["divergence_alpha"] = replace(objective, loss=replace(loss, alpha=_other(loss.alpha)))
    return out


def _unpaired(objective: UnpairedObjective) -> dict[str, Any]:
    return {name: replace(objective, settings=new) for name, new in _changed(objective.settings).items()}


def _ppo(objective: PpoObjective) -> dict[str, Any]:
    out = {name: _with(objective, name) for name in ("clip", "value_clip", "vf_coef")}
    out = {name: changed for name, changed in out.items() if getattr(objective, name) is not None}
    if objective.kl_coef is not None:
        out["kl_coef"] = replace(objective, kl_coef=KlControl(_other(objective.kl_coef.value)))
    return out


def _grpo(objective: GrpoObjective) -> dict[str, Any]:
    variant = objective.variant
    names = [] if variant.clip == "none" else ["clip_low", "clip_high"]
    names += ["delta"] if variant.delta is not None else []
    names += ["kl_coef"] if variant.kl_in_loss else []
    return {name: replace(objective, variant=_with(variant, name)) for name in names}


_KNOBS: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    PreferenceObjective: _pairs,
    UnpairedObjective: _unpaired,
    RewardObjective: lambda objective: {"centring": _with(objective, "centring")},
    PpoObjective: _ppo,
    GrpoObjective: _grpo,
}
"""Type of an objective -> its knobs."""


def _changed(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name of every number -> the settings with that number changed."""
    numbers = {name: v for name, v in settings.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: {**settings, name: _other(value)} for name, value in numbers.items()}


def _with(owner: Any, name: str) -> Any:
    value = getattr(owner, name)
    return owner if value is None else replace(owner, **{name: _other(value)})


def _other(value: float) -> float:
    """Another value that is as valid: halves stay within bounds from above, and 0 becomes something."""
    return 0.5 * value if value else 0.1


def _shows(subject: Subject, changed: Any, batch: Any) -> bool:
    """Does the changed objective give another loss, or the same with another gradient? A refusal shows too."""
    other = replace(subject, objective=changed)
    try:
        before, after = measure_loss(subject, batch), measure_loss(other, batch)
        if abs(after - before) > 1e-7 * max(abs(before), 1e-6):
            return True
        return measure_slope(subject, [batch]).distance(measure_slope(other, [batch])) > 1e-6
    except TrueupError:
        return True


def _inert(dead: list[str]) -> Finding:
    message = f"Changing {', '.join(dead)} changes neither the loss nor its gradient."
    remedy = "Leave it out, or find where the loss ignores it: what a sweep over it shows would be noise."
    return Finding("inert-knob", "warning", 0, message, remedy, {"knobs": dead}, REFERENCE)
