"""Every loss of the catalog against a scalar float64 version written from its paper.

The oracles are written as the papers write them, in probabilities and one response at a time, without the log-sum-exp
forms of the library, so a slip in an algebraic simplification shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from trueup.losses.catalog import CATALOG
from trueup.types import PairLogps


def logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def bradley_terry_probability(pair: Any, beta: float) -> float:
    """DPO Eq. 6: the probability of the observed preference under the implicit reward."""
    chosen = (math.exp(pair.w) / math.exp(pair.ref_w)) ** beta
    rejected = (math.exp(pair.l) / math.exp(pair.ref_l)) ** beta
    return chosen / (chosen + rejected)


def dpo(pair: Any, beta: float, label_smoothing: float = 0.0) -> float:
    p = bradley_terry_probability(pair, beta)
    return -(1 - label_smoothing) * math.log(p) - label_smoothing * math.log(1 - p)


def robust_dpo(pair: Any, beta: float, label_smoothing: float = 0.1) -> float:
    swapped = SimpleNamespace(w=pair.l, l=pair.w, ref_w=pair.ref_l, ref_l=pair.ref_w)
    eps = label_smoothing
    return ((1 - eps) * dpo(pair, beta) - eps * dpo(swapped, beta)) / (1 - 2 * eps)


def ipo(pair: Any, beta: float) -> float:
    gap = (pair.w - pair.ref_w) / pair.n_w - (pair.l - pair.ref_l) / pair.n_l
    return (gap - 1 / beta / 2) ** 2


def slic(pair: Any, beta: float) -> float:
    return max(0.0, 1.0 - beta * math.log(math.exp(pair.w - pair.l) / math.exp(pair.ref_w - pair.ref_l)))


def exo(pair: Any, beta: float, label_smoothing: float = 1e-3) -> float:
    learnt = np.array([bradley_terry_probability(pair, beta), 1 - bradley_terry_probability(pair, beta)])
    target = np.array([1 - label_smoothing, label_smoothing])
    return float(np.sum(learnt * np.log(learnt / target)))


def discopop(pair: Any, beta: float, tau: float = 0.05) -> float:
    rho = beta * (pair.w - pair.l - pair.ref_w + pair.ref_l)
    blend = logistic(rho / tau)
    return (1 - blend) * math.log(1 + math.exp(-rho)) + blend * math.exp(-rho)


def dpo_norm(pair: Any, beta: float) -> float:
    chosen = (math.exp(pair.w) / math.exp(pair.ref_w)) ** (beta / pair.n_w)
    rejected = (math.exp(pair.l) / math.exp(pair.ref_l)) ** (beta / pair.n_l)
    return -math.log(chosen / (chosen + rejected))


def r_dpo(pair: Any, beta: float, alpha: float = 0.01) -> float:
    reward_chosen = beta * (pair.w - pair.ref_w) + alpha * pair.n_w
    reward_rejected = beta * (pair.l - pair.ref_l) + alpha * pair.n_l
    return -math.log(logistic(reward_chosen - reward_rejected))


def dpop(pair: Any, beta: float, penalty: float = 50.0) -> float:
    shortfall = max(0.0, math.log(math.exp(pair.ref_w) / math.exp(pair.w)))
    return math.log(1 + math.exp(-beta * (pair.w - pair.ref_w - pair.l + pair.ref_l - penalty * shortfall)))


def nca(pair: Any, beta: float) -> float:
    loss = -math.log(logistic(beta * (pair.w - pair.ref_w)))
    for reward in (beta * (pair.w - pair.ref_w), beta * (pair.l - pair.ref_l)):
        loss -= 0.5 * math.log(logistic(-reward))
    return loss


def bco_pair(pair: Any, beta: float, delta: float = 0.0) -> float:
    is_good = logistic(beta * (pair.w - pair.ref_w) - delta)
    looks_good = logistic(beta * (pair.l - pair.ref_l) - delta)
    return -math.log(is_good) - math.log(1 - looks_good)


def sppo(pair: Any, beta: float) -> float:
    eta = 1 / beta
    loss = 0.0
    for logp, ref, win in ((pair.w, pair.ref_w, 1.0), (pair.l, pair.ref_l, 0.0)):
        loss += (logp - ref - eta * (win - 0.5)) ** 2
    return loss


def apo_zero(pair: Any, beta: float) -> float:
    return 1 - logistic(beta * (pair.w - pair.ref_w)) + logistic(beta * (pair.l - pair.ref_l))


def apo_down(pair: Any, beta: float) -> float:
    r_w, r_l = beta * (pair.w - pair.ref_w), beta * (pair.l - pair.ref_l)
    return 1 + logistic(r_w) - logistic(r_w - r_l)


def sft(pair: Any, beta: None) -> float:
    return -pair.w / pair.n_w


def simpo(pair: Any, beta: float, gamma: float = 1.0) -> float:
    return math.log(1 + math.exp(-(beta / pair.n_w * pair.w - beta / pair.n_l * pair.l - gamma)))


def orpo(pair: Any, beta: float) -> float:
    p_w, p_l = math.exp(pair.w / pair.n_w), math.exp(pair.l / pair.n_l)
    odds_ratio = (p_w / (1 - p_w)) / (p_l / (1 - p_l))
    return -math.log(p_w) + beta * -math.log(odds_ratio / (1 + odds_ratio))


def cpo(pair: Any, beta: float, sft_weight: float = 1.0) -> float:
    prefer = math.exp(pair.w) ** beta / (math.exp(pair.w) ** beta + math.exp(pair.l) ** beta)
    return -math.log(prefer) - sft_weight * pair.w / pair.n_w


def quantile_losses(upper: list[float], lower: list[float], beta: float, eps: float) -> list[float]:
    """Compare the i-th smallest of both lists; give the loss to the element of ``upper`` that has that rank."""
    losses = [0.0] * len(upper)
    for place, other in zip(sorted(range(len(upper)), key=upper.__getitem__), sorted(lower), strict=True):
        p = logistic(beta * (upper[place] - other))
        losses[place] = -(1 - eps) * math.log(p) - eps * math.log(1 - p)
    return losses


def aot(pairs: list[Any], beta: float, label_smoothing: float = 0.0) -> list[float]:
    policy, reference = [p.w - p.l for p in pairs], [p.ref_w - p.ref_l for p in pairs]
    return quantile_losses(policy, reference, beta, label_smoothing)


def aot_unpaired(pairs: list[Any], beta: float, label_smoothing: float = 0.0) -> list[float]:
    chosen, rejected = [p.w - p.ref_w for p in pairs], [p.l - p.ref_l for p in pairs]
    return quantile_losses(chosen, rejected, beta, label_smoothing)


def reward_model(row: Any, beta: None, margin: float | None = None, centring: float = 0.0) -> float:
    prefer = math.exp(row.s_w) / (math.exp(row.s_w) + math.exp(row.s_l + (margin or 0.0)))
    return -math.log(prefer) + centring * (row.s_w + row.s_l) ** 2


def kto(row: Any, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> float:
    reward = row.logp - row.ref
    if row.good:
        return desirable_weight - desirable_weight * logistic(beta * (reward - 0.7))
    return undesirable_weight - undesirable_weight * logistic(beta * (0.7 - reward))


def bco(row: Any, beta: float) -> float:
    p = logistic(beta * (row.logp - row.ref) - 0.7)
    return -math.log(p if row.good else 1 - p)


def ppo(row: Any, beta: None, low: float, high: float, delta: float = math.inf) -> float:
    ratio = math.exp(row.logp) / math.exp(row.old)
    held = min(max(ratio, 1 - low), 1 + high)
    return -min(min(ratio, delta) * row.advantage, held * row.advantage)


def cispo(row: Any, beta: None, low: float, high: float) -> float:
    weight = min(max(math.exp(row.logp) / math.exp(row.old), 1 - low), 1 + high)
    return -weight * row.advantage * row.logp


def value(row: Any, beta: None, clip: float) -> float:
    held = min(max(row.value, row.old_value - clip), row.old_value + clip)
    return 0.5 * max((row.value - row.target) ** 2, (held - row.target) ** 2)


# name → (oracle of one row, or of all rows for those in WHOLE_BATCH; option settings to try besides the defaults)
ORACLES: dict[str, tuple[Callable[..., Any], list[dict[str, float]]]] = {
    "sigmoid": (dpo, [{}, {"label_smoothing": 0.2}]),
    "robust": (robust_dpo, [{}, {"label_smoothing": 0.3}]),
    "ipo": (ipo, [{}]),
    "hinge": (slic, [{}]),
    "exo_pair": (exo, [{}, {"label_smoothing": 0.1}]),
    "discopop": (discopop, [{}, {"tau": 0.4}]),
    "sigmoid_norm": (dpo_norm, [{}]),
    "length_controlled": (r_dpo, [{}, {"alpha": 0.3}]),
    "dpop": (dpop, [{}, {"penalty": 2.0}]),
    "nca_pair": (nca, [{}]),
    "bco_pair": (bco_pair, [{}, {"delta": -0.4}]),
    "sppo_hard": (sppo, [{}]),
    "apo_zero": (apo_zero, [{}]),
    "apo_down": (apo_down, [{}]),
    "aot": (aot, [{}, {"label_smoothing": 0.2}]),
    "aot_unpaired": (aot_unpaired, [{}, {"label_smoothing": 0.2}]),
    "sft": (sft, [{}]),
    "simpo": (simpo, [{}, {"gamma": 0.3}]),
    "orpo": (orpo, [{}]),
    "cpo": (cpo, [{}, {"sft_weight": 0.4}]),
    "bradley_terry": (reward_model, [{}, {"margin": 0.6}, {"centring": 0.05}, {"margin": 0.6, "centring": 0.05}]),
    "kto": (kto, [{}, {"desirable_weight": 1.3, "undesirable_weight": 0.8}]),
    "bco": (bco, [{}]),
    "clipped_surrogate": (ppo, [{"low": 0.2, "high": 0.3}, {"low": 0.2, "high": 0.3, "delta": 1.5}]),
    "cispo": (cispo, [{"low": 0.4, "high": 0.5}]),
    "clipped_value": (value, [{"clip": 0.3}]),
}
WHOLE_BATCH = {"aot", "aot_unpaired"}
ROWS = 12


def preference_rows(rng: np.random.Generator) -> list[Any]:
    rows = []
    for _ in range(ROWS):
        n_w, n_l = rng.integers(1, 30, size=2)
        w, l = -rng.uniform(0.2, 3.0) * n_w, -rng.uniform(0.2, 3.0) * n_l  # noqa: E741
        rows.append(SimpleNamespace(w=w, l=l, ref_w=w + rng.normal() * 4, ref_l=l + rng.normal() * 4, n_w=n_w, n_l=n_l))
    return rows


def online_rows(rng: np.random.Generator) -> list[Any]:
    rows = []
    for good in rng.permutation([True, False] * (ROWS // 2)):
        logp, value = -rng.uniform(0.1, 3.0), rng.normal()
        row = SimpleNamespace(s_w=rng.normal(), s_l=rng.normal(), logp=logp, ref=logp + rng.normal(), good=bool(good))
        row.old, row.advantage = logp + rng.normal() * 0.5, rng.normal()
        row.value, row.old_value, row.target = value, value + rng.normal() * 0.4, rng.normal()
        rows.append(row)
    return rows


def column(rows: list[Any], name: str) -> torch.Tensor:
    values = [getattr(row, name) for row in rows]
    return torch.tensor(values) if isinstance(values[0], bool) else torch.tensor(values, dtype=torch.float64)


def arguments(name: str, rows: list[Any]) -> list[Any]:
    """Return the positional arguments of a loss, made of the rows' columns."""
    if CATALOG[name].family == "preference":
        chosen, rejected, n_w, n_l, ref_w, ref_l = (column(rows, c) for c in ("w", "l", "n_w", "n_l", "ref_w", "ref_l"))
        return [PairLogps(chosen, rejected, n_w.long(), n_l.long(), ref_w, ref_l)]
    columns = {
        "bradley_terry": ("s_w", "s_l"),
        "kto": ("logp", "ref", "good"),
        "bco": ("logp", "ref", "good"),
        "clipped_surrogate": ("logp", "old", "advantage"),
        "cispo": ("logp", "old", "advantage"),
        "clipped_value": ("value", "old_value", "target"),
    }
    reference_point = [0.7] if CATALOG[name].family == "unpaired" else []
    return [column(rows, c) for c in columns[name]] + reference_point


CASES = [
    pytest.param(name, options, beta, id=f"{name}-{options or 'defaults'}-{beta}")
    for name, (_, settings) in ORACLES.items()
    for options in settings
    for beta in ((0.1, 0.7) if name in CATALOG and CATALOG[name].default_beta is not None else (None,))
]


@pytest.mark.parametrize(("name", "options", "beta"), CASES)
def test_loss_equals_its_paper(name: str, options: dict[str, float], beta: float | None) -> None:
    oracle = ORACLES[name][0]
    rng = np.random.default_rng(sum(map(ord, name)))
    rows = preference_rows(rng) if CATALOG[name].family == "preference" else online_rows(rng)

    strength = {} if beta is None else {"beta": beta}
    result = CATALOG[name].function(*arguments(name, rows), **strength, **options)
    result = result if isinstance(result, torch.Tensor) else result.loss

    expected = oracle(rows, beta, **options) if name in WHOLE_BATCH else [oracle(row, beta, **options) for row in rows]
    assert result.shape == (ROWS,)
    np.testing.assert_allclose(result.numpy(), np.array(expected), rtol=1e-9, atol=1e-9)


def test_every_entry_has_an_oracle() -> None:
    assert set(ORACLES) == set(CATALOG)


def test_every_option_is_tried_away_from_its_default() -> None:
    for name, (_, settings) in ORACLES.items():
        tried = {(option, value) for setting in settings for option, value in setting.items()}
        live = {option for option, value in tried if value != CATALOG[name].defaults.get(option)}
        assert live == set(CATALOG[name].options), name


def test_margin_may_differ_between_pairs() -> None:
    chosen, rejected = torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.5])
    loss = CATALOG["bradley_terry"].function(chosen, rejected, margin=torch.tensor([0.5, 0.0]))
    assert loss[0].item() == pytest.approx(math.log(2.0))
    assert loss[1].item() == pytest.approx(math.log(1 + math.exp(-0.5)))
