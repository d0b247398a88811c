"""Kind ``gae``: generalised advantage estimation over the tokens of responses (Schulman et al. 2016, arXiv:1506.02438).

delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}; V and A are 0 after the last real token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trueup.preflight.conformance.gae_probes import PROBES
from trueup.preflight.conformance.protocol import Case, Fault, Inputs, Kind, Oracle, Suspect
from trueup.preflight.conformance.signatures import SIGNATURES

CONVENTIONS = {
    "raw": "advantages as they come",
    "whitened": "advantages whitened over real tokens, with the deviation of the sample (n - 1)",
    "whitened, n": "advantages whitened over real tokens, with the deviation over n",
}

SIGN = Fault(
    "gae-sign",
    "Advantages have the other sign.",
    "Nothing looks wrong but the reward, which falls.",
    "delta = reward + gamma * next_value - value.",
)
LAMBDA = Fault(
    "gae-lambda-ignored",
    "lam is not used: these are one-step temporal differences (lam = 0).",
    "A reward at the end reaches the last token alone until the values have learnt it; turning lam does nothing.",
    "advantage = delta + gamma * lam * next_advantage.",
)
MONTE_CARLO = Fault(
    "gae-monte-carlo",
    "lam is not used: this is the return less the value (lam = 1).",
    "It is unbiased and learns, with more noise; turning lam does nothing.",
    "advantage = delta + gamma * lam * next_advantage.",
)
IMMEDIATE = Fault(
    "gae-immediate-reward",
    "The advantage is the token's own reward less its value; gamma and lam do nothing.",
    "Where the reward is paid at the end, only the last token is told of it; after whitening the rest share one sign.",
    "Run back from the last token: advantage = delta + gamma * lam * next_advantage.",
)
NO_GAMMA = Fault(
    "gae-gamma-forgotten",
    "gamma is missing in a place: on the next value, on the next advantage, or on both.",
    "At gamma = 1 it makes no difference.",
    "delta = reward + gamma * next_value - value; advantage = delta + gamma * lam * next_advantage.",
)
TWICE = Fault(
    "gae-gamma-twice",
    "gamma is applied twice.",
    "At gamma = 1 it makes no difference.",
    "One gamma on the next value, one on the next advantage.",
)
SWAPPED = Fault(
    "gae-gamma-lam-swapped",
    "gamma and lam have changed places.",
    "Their product is right, and only the next value is scaled by the wrong one.",
    "Pass gamma and lam by name.",
)
BOOTSTRAP = Fault(
    "gae-terminal-bootstrap",
    "After the last token the value of the last token is taken, as if the episode went on.",
    "Values grow until they carry themselves; at gamma = 1 the last token's advantage is its reward alone.",
    "A finished response has the next value 0.",
)
NEXT = Fault(
    "gae-next-value",
    "The next value is the token's own.",
    "At gamma = 1 values cancel altogether, and advantages are sums of rewards.",
    "next_value is values at t + 1.",
)
FORWARD = Fault(
    "gae-reversed-time",
    "Advantages are summed up from the first token on.",
    "Later tokens are credited with what came before them, which they cannot have caused; shapes and sizes are right.",
    "Go through the tokens from the last to the first.",
)
PADDING = Fault(
    "gae-padding",
    "Values and rewards of padding count.",
    "Only shorter responses of a batch are wrong, and by what the critic says about padding.",
    "Set the next value and the next advantage to 0 at the last real token of each response.",
)
RETURNS = Fault(
    "gae-returns",
    "Returns are returned where advantages should be.",
    "Whitening hides it: the baseline is missing and the noise is larger.",
    "Return (advantages, returns) in this order, returns = advantages + values.",
)
NO_BASELINE = Fault(
    "gae-no-baseline",
    "The value of the state is not subtracted, or values are not used at all.",
    "Whitening hides it: the policy learns slowly, and the critic is trained for nothing.",
    "delta = reward + gamma * next_value - value.",
)


def _deltas(rewards: np.ndarray, values: np.ndarray, gamma: float) -> np.ndarray:
    following = np.append(values, 0.0)
    return np.array([rewards[t] + gamma * following[t + 1] - values[t] for t in range(len(values))])


def _summed(deltas: np.ndarray, decay: float) -> np.ndarray:
    """Sum over s >= t of decay^(s - t) delta_s, as it is written."""
    return np.array(
        [sum(decay ** (s - t) * deltas[s] for s in range(t, len(deltas))) for t in range(len(deltas))], float
    )


Response = Callable[[np.ndarray, np.ndarray, float, float], np.ndarray]
"""(rewards [L], values [L], gamma, lam) of one response without padding -> advantages [L]."""


def _advantages(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    return _summed(_deltas(rewards, values, gamma), gamma * lam)


def _lengths(inputs: Inputs) -> np.ndarray:
    shape = inputs["rewards"].shape
    return inputs["mask"].sum(1) if "mask" in inputs else np.full(shape[0], shape[1])


def _over(response: Response, *, padded: bool = False) -> Oracle:
    """The oracle that takes responses one by one; NaN stands where padding is and anything will do."""

    def oracle(inputs: Inputs, convention: str) -> np.ndarray:
        rewards, values = inputs["rewards"], inputs["values"]
        found = np.full(rewards.shape, np.nan)
        for row, length in enumerate(_lengths(inputs)):
            seen = rewards.shape[1] if padded else length
            whole = response(rewards[row, :seen], values[row, :seen], inputs["gamma"], inputs["lam"])
            found[row, :length] = whole[:length]
        if convention == "raw":
            return found
        deviation = np.nanstd(found, ddof=1 if convention == "whitened" else 0)
        return (found - np.nanmean(found)) / (deviation + 1e-8)

    return oracle


def _own_value_next(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float, *, end: bool) -> np.ndarray:
    following = values.copy()
    following[-1] = values[-1] if end else 0.0
    return _summed(rewards + gamma * following - values, gamma * lam)


def _bootstrapped(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    deltas = _deltas(rewards, values, gamma)
    deltas[-1] += gamma * values[-1]
    return _summed(deltas, gamma * lam)


def _forward(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    return _summed(_deltas(rewards, values, gamma)[::-1], gamma * lam)[::-1]


def _decays(next_value: Callable[[float], float], decay: Callable[[float, float], float]) -> Response:
    return lambda r, v, gamma, lam: _summed(_deltas(r, v, next_value(gamma)), decay(gamma, lam))


FORMULAS: tuple[tuple[Fault, Response], ...] = (
    (SIGN, lambda r, v, gamma, lam: -_advantages(r, v, gamma, lam)),
    (RETURNS, lambda r, v, gamma, lam: _advantages(r, v, gamma, lam) + v),
    (LAMBDA, lambda r, v, gamma, lam: _advantages(r, v, gamma, 0.0)),
    (MONTE_CARLO, lambda r, v, gamma, lam: _advantages(r, v, gamma, 1.0)),
    (IMMEDIATE, lambda r, v, gamma, lam: r - v),
    (NO_GAMMA, _decays(lambda gamma: 1.0, lambda gamma, lam: lam)),
    (NO_GAMMA, _decays(lambda gamma: 1.0, lambda gamma, lam: gamma * lam)),
    (NO_GAMMA, _decays(lambda gamma: gamma, lambda gamma, lam: lam)),
    (TWICE, _decays(lambda gamma: gamma**2, lambda gamma, lam: gamma**2 * lam)),
    (TWICE, _decays(lambda gamma: gamma**2, lambda gamma, lam: gamma * lam)),
    (TWICE, _decays(lambda gamma: gamma, lambda gamma, lam: gamma**2 * lam)),
    (SWAPPED, lambda r, v, gamma, lam: _advantages(r, v, lam, gamma)),
    (BOOTSTRAP, _bootstrapped),
    (NEXT, lambda r, v, gamma, lam: _own_value_next(r, v, gamma, lam, end=False)),
    (NEXT, lambda r, v, gamma, lam: _own_value_next(r, v, gamma, lam, end=True)),
    (FORWARD, _forward),
    (NO_BASELINE, lambda r, v, gamma, lam: _advantages(r, v, gamma, lam) + _summed(v, gamma * lam)),
    (NO_BASELINE, lambda r, v, gamma, lam: _summed(r, gamma * lam)),
    (NO_BASELINE, lambda r, v, gamma, lam: _summed(r, gamma)),
)
SUSPECTS = (
    *(Suspect(fault, _over(formula)) for fault, formula in FORMULAS),
    Suspect(PADDING, _over(_advantages, padded=True)),
)


def _case(name: str, seed: int, gamma: float, lam: float) -> Case:
    rng = np.random.default_rng(seed)
    mask = np.arange(6) < np.array([6, 3, 5, 2])[:, None]
    inputs: dict[str, Any] = {
        "rewards": rng.standard_normal((4, 6)),
        "values": 0.5 + rng.standard_normal((4, 6)),
        "gamma": gamma,
        "lam": lam,
        "mask": mask,
    }
    return Case(name, inputs)


CASES = (_case("gamma 0.9, lam 0.8", 0, 0.9, 0.8), _case("gamma 0.97, lam 0.6", 1, 0.97, 0.6))

RIGHT = _over(_advantages)

KIND = Kind(
    SIGNATURES["gae"],
    CASES,
    RIGHT,
    CONVENTIONS,
    SUSPECTS,
    PROBES,
)
