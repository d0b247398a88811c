"""The loss of a run on pairs: an entry of the catalog, or a weighted sum of several, with all that bears on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from trueup.errors import UserError
from trueup.losses.catalog import check_divergence, check_options, lookup
from trueup.losses.entry import Loss
from trueup.losses.implicit import with_divergence
from trueup.losses.mixture import MIXTURES, check_parts
from trueup.losses.weighting import wpo_weights
from trueup.types import PairLogps

Options = Mapping[str, float | Mapping[str, float]]
"""Of one loss: option -> value. Of a mixture: part -> option -> value."""

Given = Mapping[str, Mapping[str, float]]
"""Part -> option -> value."""

NONE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Part:
    """One loss of the sum: its entry, its weight, and its settings, ``beta`` included where it has one."""

    loss: Loss
    weight: float
    settings: Mapping[str, float]


@dataclass(frozen=True)
class PairLoss:
    """Σ weight · loss over the parts, unreduced. ``choose`` makes one and refuses what would do nothing.

    Attributes:
        parts: one or more.
        divergence: a key of ``implicit.DIVERGENCES``; it acts on the parts that compare with a reference.
        alpha: of the divergence ``alpha``; None = its default.
        weighted: multiply every pair's loss by its WPO weight.
    """

    parts: tuple[Part, ...]
    divergence: str = "reverse_kl"
    alpha: float | None = None
    weighted: bool = False

    @property
    def name(self) -> str:
        """The loss's name, or the sum in words."""
        if len(self.parts) == 1:
            return self.parts[0].loss.name
        return " + ".join(f"{part.weight:g} {part.loss.name}" for part in self.parts)

    @property
    def needs_reference(self) -> bool:
        """Does any part compare with a reference?"""
        return any(part.loss.needs_reference for part in self.parts)

    @property
    def couples_batch(self) -> bool:
        """Is any part no sum over pairs, so that a step must not be cut?"""
        return any(part.loss.couples_batch for part in self.parts)

    @property
    def running_mean(self) -> bool:
        """Does any part want the running mean of implicit rewards as its ``delta``?"""
        return any(part.loss.running_mean and "delta" not in part.settings for part in self.parts)

    @property
    def beta(self) -> float:
        """The beta of the first part that has one, those with a reference first: what rewards are reported in."""
        ordered = sorted(self.parts, key=lambda part: not part.loss.needs_reference)
        return next((part.settings["beta"] for part in ordered if "beta" in part.settings), 0.0)

    def values(
        self, pairs: PairLogps, delta: float = 0.0, alignment: tuple[Tensor, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return each part's losses ``[B]`` before the part's weight, in the order of the parts.

        Args:
            pairs: what the parts are functions of.
            delta: the running mean of implicit rewards, scaled by beta; only parts that want one get it.
            alignment: for WPO, the sum over tokens of log Σ_v π(v)² of chosen and rejected, each ``[B]``.
        """
        shaped = pairs
        if self.divergence != "reverse_kl":
            shaped = with_divergence(pairs, self.divergence, **({} if self.alpha is None else {"alpha": self.alpha}))
        out = {}
        for part in self.parts:
            running = {"delta": delta} if part.loss.running_mean and "delta" not in part.settings else {}
            seen = shaped if part.loss.needs_reference else pairs
            out[part.loss.name] = part.loss.function(seen, **running, **part.settings)
        if not self.weighted:
            return out
        weights = wpo_weights(pairs, *(alignment or (0.0, 0.0)))
        return {name: weights * losses for name, losses in out.items()}

    def total(self, pairs: PairLogps, delta: float = 0.0, alignment: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the weighted sum of the parts ``[B]``; arguments as for ``values``."""
        values = self.values(pairs, delta, alignment)
        return torch.stack([part.weight * values[part.loss.name] for part in self.parts]).sum(dim=0)


def choose(
    loss: str | Mapping[str, float],
    *,
    beta: float | None = None,
    label_smoothing: float | None = None,
    options: Options = NONE,
    divergence: str = "reverse_kl",
    alpha: float | None = None,
    weighting: str = "none",
) -> PairLoss:
    """Return the loss that these settings describe.

    Args:
        loss: a name of the catalog or of ``MIXTURES``, or a mixture as name -> weight.
        beta: for every part that has one and is not given its own; None = each loss's default.
        label_smoothing: the same; None = each loss's default.
        options: further options of the loss, or of the parts by name.
        divergence: a key of ``implicit.DIVERGENCES``.
        alpha: of the divergence ``alpha``.
        weighting: ``none`` or ``wpo``.

    Raises:
        UserError: a name is not known, or a setting would do nothing or is not valid for the loss.
    """
    weights = _weights(loss)
    given = _by_part(tuple(weights), options)
    check_parts(tuple(weights.items()), given)
    given = _shared(given, "beta", beta)
    given = _shared(given, "label_smoothing", label_smoothing)
    parts = tuple(_part(name, weight, given[name]) for name, weight in weights.items())
    _check_divergence(parts, divergence, alpha)
    chosen = PairLoss(parts, divergence, alpha, weighting == "wpo")
    if chosen.weighted and chosen.couples_batch:
        raise UserError(f"weighting 'wpo' weighs pairs, and {chosen.name} ranks them against each other: leave it out")
    _try(chosen)
    return chosen


def _try(loss: PairLoss) -> None:
    """Call the loss on one pair: every function refuses values of its options that are out of range."""
    nothing, one = torch.full((1,), -1.0), torch.ones(1, dtype=torch.int64)
    loss.values(PairLogps(nothing, nothing, one, one, nothing, nothing))


def _weights(loss: str | Mapping[str, float]) -> dict[str, float]:
    if not isinstance(loss, str):
        return dict(loss)
    if loss in MIXTURES:
        return dict(MIXTURES[loss])
    return {lookup(loss, "preference", also=MIXTURES).name: 1.0}


def _by_part(names: tuple[str, ...], options: Options) -> Given:
    """Options as part -> option -> value, whichever way they were given."""
    nested = {key: dict(value) for key, value in options.items() if isinstance(value, Mapping)}
    flat = {key: value for key, value in options.items() if not isinstance(value, Mapping)}
    if len(names) == 1 and not nested:
        return {names[0]: flat}
    if flat:
        raise UserError(
            f"options: {', '.join(flat)} must say which part is meant: "
            f"give {{part: {{option: value}}}}, with a part of {', '.join(names)}"
        )
    return {**{name: {} for name in names}, **nested}


def _shared(given: Given, option: str, value: float | None) -> Given:
    """Give ``option`` to every part that takes it and has none of its own; refuse it where there is no such part."""
    if value is None:
        return given
    takers = [name for name, own in given.items() if option in lookup(name).taken and option not in own]
    if not takers and len(given) == 1:
        check_options(lookup(next(iter(given))), [option])
        raise UserError(f"'{option}' is given twice: give it once, as itself or in the options")
    if not takers:
        takes = "; ".join(f"{name} takes {', '.join(sorted(lookup(name).taken)) or 'no options'}" for name in given)
        raise UserError(f"option '{option}' does nothing for this mixture, or every part has its own: {takes}")
    return {name: {**own, option: value} if name in takers else own for name, own in given.items()}


def _part(name: str, weight: float, given: Mapping[str, float]) -> Part:
    loss = lookup(name)
    if not given.get("beta", 1.0) > 0.0:
        raise UserError(f"beta of loss '{name}' is {given['beta']}: it must be above 0")
    defaults = {} if loss.default_beta is None else {"beta": loss.default_beta}
    return Part(loss, weight, {**defaults, **given})


def _check_divergence(parts: tuple[Part, ...], divergence: str, alpha: float | None) -> None:
    """Refuse a divergence that is not valid for a part, or acts on none; and an alpha that nothing reads."""
    if alpha is not None and divergence != "alpha":
        raise UserError(f"alpha does nothing for divergence '{divergence}': leave it out, or choose divergence alpha")
    compared = [part.loss for part in parts if part.loss.needs_reference]
    for loss in compared:
        check_divergence(loss, divergence)
    if divergence != "reverse_kl" and not compared:
        names = ", ".join(part.loss.name for part in parts)
        raise UserError(f"divergence '{divergence}' does nothing for {names}: without a reference nothing diverges")
