"""Kind ``grpo_loss``: the clipped objective of PPO and GRPO over response tokens, with or without a KL term.

Per token -min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) + β k3, ρ = exp(log π - log π_old), k3 = exp(-d) - 1 + d with
d = log π - log π_ref. Means over tokens (DAPO), over responses (GRPO) and over a constant length (Dr. GRPO) are all
meant by somebody, and so is k2 = d²/2 for k3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trueup.preflight.conformance import grpo_faults as faults
from trueup.preflight.conformance.forms import Change, suspects
from trueup.preflight.conformance.grpo_probes import PROBES
from trueup.preflight.conformance.protocol import Case, Inputs, Kind
from trueup.preflight.conformance.signatures import SIGNATURES

CLIP = 0.2
"""What a function without a parameter ``clip`` is held to."""

BETA = 0.04
"""What a function that takes ref_logps and not beta is held to: the GRPO paper's."""

UNITS = {
    "tokens": "mean over all response tokens",
    "responses": "mean over responses of the mean over their tokens",
    "length": "sum over response tokens, divided by rows times columns",
    "sums": "mean over responses of the sum over their tokens",
}
CONVENTIONS = {
    unit + estimator: words + more
    for estimator, more in (("", ""), (", k2", "; the KL term, if any, is k2 and not k3"))
    for unit, words in UNITS.items()
}

Array = np.ndarray


def _k3(logps: Array, ref: Array) -> Array:
    return np.exp(ref - logps) - 1 - (ref - logps)


def _k2(logps: Array, ref: Array) -> Array:
    return (logps - ref) ** 2 / 2


def _surrogate(ratio: Array, credit: Array, clip: float) -> Array:
    return np.minimum(ratio * credit, np.clip(ratio, 1 - clip, 1 + clip) * credit)


@dataclass(frozen=True)
class _Formula:
    """The loss in parts, each of which can be got wrong.

    Attributes:
        ratio: (log π, log π_old) -> ρ.
        credit: [B] -> [B, 1] or [1, T].
        surrogate: (ρ, A, ε) -> what is to be made large.
        divergence: (log π, log π_ref) -> the KL term; None: that of the convention.
        in_advantage: the KL term is subtracted from the advantage, not added to the loss.
        sign: of the surrogate in the loss.
        kl_sign: of the KL term in the loss.
        counted: "real": response tokens; "summed": padding is in the sum; "all": it is in the sum and in the count.
        total: nothing is divided by anything.
    """

    ratio: Callable[[Array, Array], Array] = lambda logps, old: np.exp(logps - old)
    credit: Callable[[Array], Array] = lambda advantages: advantages[:, None]
    surrogate: Callable[[Array, Array, float], Array] = _surrogate
    divergence: Callable[[Array, Array], Array] | None = None
    in_advantage: bool = False
    sign: float = -1.0
    kl_sign: float = 1.0
    counted: str = "real"
    total: bool = False

    def __call__(self, inputs: Inputs, convention: str) -> np.ndarray:
        """The loss under a convention; an oracle."""
        unit, _, estimator = convention.partition(", ")
        divergence = self.divergence or (_k2 if estimator else _k3)
        credit = self.credit(inputs["advantages"])
        penalty = self._penalty(inputs, divergence)
        if self.in_advantage:
            credit, penalty = credit - penalty, 0.0
        ratio = self.ratio(inputs["logps"], inputs["old_logps"])
        losses = self.sign * self.surrogate(ratio, credit, inputs.get("clip", CLIP)) + self.kl_sign * penalty
        return self._reduced(losses, inputs["mask"], unit)

    def _penalty(self, inputs: Inputs, divergence: Callable[[Array, Array], Array]) -> Array | float:
        if "ref_logps" not in inputs:
            return 0.0
        return inputs.get("beta", BETA) * divergence(inputs["logps"], inputs["ref_logps"])

    def _reduced(self, losses: Array, mask: Array, unit: str) -> np.ndarray:
        summed = mask if self.counted == "real" else np.ones_like(mask)
        count = np.ones_like(mask) if self.counted == "all" else mask
        sums = (losses * summed).sum(1)
        if self.total:
            return np.asarray(sums.sum())
        means = {
            "tokens": sums.sum() / count.sum(),
            "responses": (sums / count.sum(1)).mean(),
            "length": sums.sum() / mask.size,
            "sums": sums.mean(),
        }
        return np.asarray(means[unit])


RIGHT = _Formula()


def _whitened(ddof: int) -> Callable[[Array], Array]:
    return lambda a: ((a - a.mean()) / (a.std(ddof=ddof) + 1e-8))[:, None]


def _clipped_to(bounds: Callable[[float], tuple[float, float]]) -> Callable[[Array, Array, float], Array]:
    """The surrogate with other bounds than 1 - ε and 1 + ε."""
    return lambda ratio, credit, clip: np.minimum(ratio * credit, np.clip(ratio, *bounds(clip)) * credit)


BOUNDS: tuple[Callable[[float], tuple[float, float]], ...] = (
    lambda clip: (1 - clip / 2, 1 + clip / 2),
    lambda clip: (1 - 2 * clip, 1 + 2 * clip),
    lambda clip: (np.exp(-clip), np.exp(clip)),
    lambda clip: (1 / (1 + clip), 1 + clip),
    lambda clip: (-np.inf, 1 + clip),
    lambda clip: (1 - clip, np.inf),
    lambda clip: (-clip, clip),
    lambda clip: (1 + clip, 1 + clip),
    lambda clip: (1 - CLIP, 1 + CLIP),
)

CHANGES: tuple[Change, ...] = (
    (faults.NO_MINUS, {"sign": 1.0}),
    (faults.NO_MINUS, {"sign": 1.0, "kl_sign": -1.0}),
    (faults.ADVANTAGE_SIGN, {"credit": lambda a: -a[:, None]}),
    (faults.NOT_CLIPPED, {"surrogate": lambda ratio, credit, clip: ratio * credit}),
    (
        faults.WRONG_SIDE,
        {"surrogate": lambda r, a, clip: np.maximum(r * a, np.clip(r, 1 - clip, 1 + clip) * a)},
    ),
    (faults.CLIPPED_ALONE, {"surrogate": lambda r, a, clip: np.clip(r, 1 - clip, 1 + clip) * a}),
    *((faults.RANGE, {"surrogate": _clipped_to(bounds)}) for bounds in BOUNDS),
    (faults.INVERTED, {"ratio": lambda logps, old: np.exp(old - logps)}),
    (faults.LOG_RATIO, {"ratio": lambda logps, old: logps - old}),
    (faults.RATIO_ONE, {"ratio": lambda logps, old: np.ones_like(logps)}),
    (faults.MASK, {"counted": "all"}),
    (faults.MASK, {"counted": "summed"}),
    (faults.TOTAL, {"total": True}),
    (faults.ALONG_TOKENS, {"credit": lambda a: a[None, :]}),
    (faults.RESCALED, {"credit": _whitened(0)}),
    (faults.RESCALED, {"credit": _whitened(1)}),
    (faults.KL_SIGN, {"kl_sign": -1.0}),
    (faults.KL_K1, {"divergence": lambda logps, ref: logps - ref}),
    (faults.KL_REVERSED, {"divergence": lambda logps, ref: _k3(ref, logps)}),
    (faults.KL_REVERSED, {"divergence": lambda logps, ref: ref - logps}),
    (faults.KL_OFF, {"divergence": lambda logps, ref: np.zeros_like(logps)}),
    (faults.KL_IN_ADVANTAGE, {"in_advantage": True}),
    (faults.KL_IN_ADVANTAGE, {"in_advantage": True, "divergence": lambda logps, ref: logps - ref}),
)
SUSPECTS = suspects(CHANGES, _Formula)


def _case(name: str, seed: int, clip: float, beta: float) -> Case:
    # As many rows as columns: advantages that are laid along the tokens raise an error on any other shape, and train
    # on this one.
    rng = np.random.default_rng(seed)
    logps = -rng.gamma(2.0, 0.6, (6, 6)) - 0.05
    return Case(
        name,
        {
            "logps": logps,
            "old_logps": logps + 0.5 * rng.standard_normal((6, 6)),
            "advantages": 0.3 + 1.3 * rng.standard_normal(6),
            "mask": np.arange(6) < np.array([6, 3, 5, 2, 4, 6])[:, None],
            "clip": clip,
            "ref_logps": logps + 0.8 * rng.standard_normal((6, 6)),
            "beta": beta,
        },
    )


CASES = (_case("clip 0.2", 0, 0.2, 0.1), _case("clip 0.3", 1, 0.3, 0.25))

KIND = Kind(SIGNATURES["grpo_loss"], CASES, RIGHT, CONVENTIONS, SUSPECTS, PROBES)
