"""Kind ``kl``: estimates of KL(pi || pi_ref) from log-probabilities of tokens that pi has sampled.

With d = log pi - log pi_ref of a token: k1 = d, k2 = d²/2, k3 = exp(-d) - 1 + d (J. Schulman, "Approximating KL
Divergence", 2020). One number a token, their mean, or a sum for each response: all three are meant by somebody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from trueup.preflight.conformance.kl_probes import PROBES
from trueup.preflight.conformance.protocol import Case, Fault, Inputs, Kind, Suspect
from trueup.preflight.conformance.signatures import SIGNATURES

Formula = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(log pi, log pi_ref) -> one number a token."""

ESTIMATORS: Mapping[str, Formula] = {
    "k1": lambda logp, ref: logp - ref,
    "k2": lambda logp, ref: (logp - ref) ** 2 / 2,
    "k3": lambda logp, ref: np.exp(ref - logp) - 1 - (ref - logp),
}
ESTIMATOR_WORDS = {"k1": "k1 = d", "k2": "k2 = d²/2", "k3": "k3 = exp(-d) - 1 + d"}
UNITS = {"": "per token", ", mean": "mean over real tokens", ", sums": "sum over the real tokens of each response"}
CONVENTIONS = {
    estimator + unit: f"{words}, {unit_words}"
    for unit, unit_words in UNITS.items()
    for estimator, words in ESTIMATOR_WORDS.items()
}

REVERSED = Fault(
    "kl-reversed",
    "The policy and the reference have changed places.",
    "k1 has the other sign; k3 has the same size and stays positive, and estimates nothing on samples of the policy.",
    "With samples of the policy d = log pi - log pi_ref: k1 = d, k3 = exp(-d) - 1 + d.",
)
SIGN = Fault(
    "kl-sign",
    "The estimate is negative where it cannot be.",
    "As a penalty it pays the policy for leaving the reference, which looks like learning.",
    "k2 and k3 are never negative: take the minus off.",
)
FORMULA = Fault(
    "kl-k3-formula",
    "k3 has a wrong term: the 1, the ratio or the log-ratio.",
    "It is positive nearly everywhere; at equality it is not 0, or not at its lowest.",
    "k3 = exp(log pi_ref - log pi) - 1 - (log pi_ref - log pi).",
)
ABSOLUTE = Fault(
    "kl-absolute",
    "The absolute value of the log-ratio is taken.",
    "It is positive, as a divergence is, and does not average to the divergence.",
    "Let k1 be negative for single tokens, or use k3.",
)
CLAMPED = Fault(
    "kl-clamped",
    "Negative log-ratios are cut at 0.",
    "It is positive, as a divergence is, and overestimates the divergence.",
    "Let k1 be negative for single tokens, or use k3.",
)
SQUARED = Fault(
    "kl-square-without-half",
    "k2 lacks its half.",
    "The coefficient acts twice as strongly as it says.",
    "k2 = (log pi - log pi_ref)² / 2.",
)
WEIGHTED = Fault(
    "kl-weighted",
    "The log-ratio of a sampled token is weighted by its probability as well.",
    "Sampling has weighted the tokens already; the estimate is far too small, and the policy seems near the reference.",
    "Average log pi - log pi_ref over samples without a weight; torch's kl_div is for whole distributions.",
)
MASK = Fault(
    "kl-mask-ignored",
    "Padding counts.",
    "The mean moves with the lengths of the other responses of the batch.",
    "Multiply by the mask and divide by its sum.",
)


def _reduced(formula: Formula, inputs: Inputs, convention: str, masked: bool = True) -> np.ndarray:
    values = formula(inputs["logps"], inputs["ref_logps"])
    real = inputs.get("mask", np.ones(values.shape, bool))
    unit = convention.partition(", ")[2]
    if not unit:
        return np.where(real, values, np.nan)
    counted = real if masked else np.ones_like(real)
    sums = (values * counted).sum(1)
    return sums if unit == "sums" else np.asarray(sums.sum() / counted.sum())


def right(inputs: Inputs, convention: str) -> np.ndarray:
    """The estimate; NaN stands where padding is and anything will do."""
    return _reduced(ESTIMATORS[convention.partition(", ")[0]], inputs, convention)


def _mask_ignored(inputs: Inputs, convention: str) -> np.ndarray:
    return _reduced(ESTIMATORS[convention.partition(", ")[0]], inputs, convention, masked=False)


def _suspect(fault: Fault, formula: Formula) -> Suspect:
    return Suspect(fault, lambda inputs, convention: _reduced(formula, inputs, convention))


SUSPECTS = (
    _suspect(REVERSED, lambda logp, ref: ref - logp),
    _suspect(REVERSED, lambda logp, ref: np.exp(logp - ref) - 1 - (logp - ref)),
    _suspect(SIGN, lambda logp, ref: -((logp - ref) ** 2) / 2),
    _suspect(SIGN, lambda logp, ref: 1 + (ref - logp) - np.exp(ref - logp)),
    _suspect(FORMULA, lambda logp, ref: np.exp(ref - logp) - (ref - logp)),
    _suspect(FORMULA, lambda logp, ref: np.exp(logp - ref) - 1 - (ref - logp)),
    _suspect(FORMULA, lambda logp, ref: np.exp(ref - logp) - 1 - (logp - ref)),
    _suspect(FORMULA, lambda logp, ref: np.exp(ref - logp) - 1),
    _suspect(FORMULA, lambda logp, ref: np.exp(logp - ref) - (logp - ref)),
    _suspect(ABSOLUTE, lambda logp, ref: np.abs(logp - ref)),
    _suspect(CLAMPED, lambda logp, ref: np.maximum(logp - ref, 0)),
    _suspect(SQUARED, lambda logp, ref: (logp - ref) ** 2),
    _suspect(WEIGHTED, lambda logp, ref: np.exp(logp) * (logp - ref)),
    _suspect(WEIGHTED, lambda logp, ref: np.exp(ref) * (ref - logp)),
    Suspect(MASK, _mask_ignored),
)


def _case(name: str, seed: int, spread: float) -> Case:
    rng = np.random.default_rng(seed)
    logp = -rng.gamma(2.0, 0.6, (4, 6)) - 0.05
    ref = np.minimum(logp + spread * rng.standard_normal((4, 6)), -0.01)
    mask = np.arange(6) < np.array([6, 3, 5, 2])[:, None]
    return Case(name, {"logps": logp, "ref_logps": ref, "mask": mask})


CASES = (_case("near the reference", 0, 0.4), _case("far from the reference", 1, 1.5))

KIND = Kind(
    SIGNATURES["kl"],
    CASES,
    right,
    CONVENTIONS,
    SUSPECTS,
    PROBES,
)
