"""What the catalog says about one loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Family = Literal["preference", "ranking", "unpaired", "policy"]
Unit = Literal["pair", "sequence", "token"]
Sign = Literal[-1, 0, 1]


@dataclass(frozen=True)
class Paper:
    """Where a loss comes from.

    Attributes:
        authors: the first author's family name, "et al." where there are more.
        year: of the first public version.
        arxiv: the arXiv id.
        place: equation, table or section; empty where the loss has no number of its own there.
    """

    authors: str
    year: int
    arxiv: str
    place: str = ""


@dataclass(frozen=True)
class Loss:
    """One loss: how to call it, where it is from, and what is true of it and can be tested.

    Attributes:
        name: its key in the catalog and in a configuration.
        function: unreduced; preference losses are called ``function(pairs, beta=…, **options)``.
        family: which signature the function has.
        needs_reference: whether reference log-probabilities are required.
        unit: what one entry of the result is about, and so what a mean is taken over.
        paper: the source.
        equation: the formula, in the notation of ``entries``.
        at_reference: the value at policy = reference and default options: a number, or a function that takes beta and
            those options it depends on by name. None where there is no such value; ``no_value`` says why.
        chosen_gradient: sign of the derivative with respect to the chosen log-probability (or score; or that of a
            desirable response; or of a token with positive advantage), at policy = reference and default options.
            -1: minimising raises it. None where there is no chosen side.
        default_beta: None where the loss has no beta.
        options: names of further options that change the loss.
        sign_everywhere: whether ``chosen_gradient`` is the sign (or the gradient zero) away from the reference too.
        no_value: why ``at_reference`` is None.
        divergences: whether the policy enters only through the difference of two implicit rewards, so that the
            f-divergence variants of the reward are valid.
        couples_batch: whether an entry of the result depends on the other pairs; such a loss is changed by gradient
            accumulation and by splitting over ranks.
        running_mean: whether it centres rewards on the running mean of implicit rewards, which the caller keeps: the
            option ``delta`` of a loss of pairs, the reference point of one of single responses.
    """

    name: str
    function: Callable[..., Any]
    family: Family
    needs_reference: bool
    unit: Unit
    paper: Paper
    equation: str
    at_reference: float | Callable[..., float] | None
    chosen_gradient: Sign | None
    default_beta: float | None
    options: frozenset[str] = frozenset()
    sign_everywhere: bool = True
    no_value: str = ""
    divergences: bool = False
    couples_batch: bool = False
    running_mean: bool = False

    @property
    def taken(self) -> frozenset[str]:
        """Names of everything that can be set, ``beta`` included where the loss has one."""
        return self.options | ({"beta"} if self.default_beta is not None else frozenset())

    @property
    def defaults(self) -> dict[str, Any]:
        """The options that need not be given, with the values they then have."""
        parameters = inspect.signature(self.function).parameters
        defaults = {name: parameters[name].default for name in self.options}
        return {name: value for name, value in defaults.items() if value is not inspect.Parameter.empty}

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the function is called with: what was given, over the loss's own beta and options."""
        beta = {} if self.default_beta is None else {"beta": self.default_beta}
        return {**beta, **self.defaults, **given}

    def value_at_reference(self, beta: float | None = None, **options: float) -> float | None:
        """Return the loss where policy and reference agree, or None where ``no_value`` says why there is none.

        Args:
            beta: the loss's default where None.
            options: the loss's defaults where left out.
        """
        if not callable(self.at_reference):
            return self.at_reference
        known = {"beta": self.default_beta if beta is None else beta, **self.defaults, **options}
        return self.at_reference(**{name: known[name] for name in inspect.signature(self.at_reference).parameters})
