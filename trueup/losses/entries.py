"""The catalog's entries for losses on pairs.

Notation: w, l are the chosen and the rejected response; r = log π - log π_ref, summed over tokens, nats; h = r_w - r_l;
|y| is a number of response tokens; σ is the logistic function; [x]₊ = max(0, x).

The default beta is DPO's 0.1, except where a loss has another scale: rewards per token (sigmoid_norm, simpo: 5 and 2,
as in their papers), targets of 1/(2β) nats (sppo_hard: 0.001) or a curve tuned at 0.05 (discopop).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from trueup.losses import anchored, preference, ranking, reference_free, transport
from trueup.losses.entry import Loss, Paper

LOG2 = math.log(2.0)


def _compared(name: str, function: Callable[..., Tensor], paper: Paper, equation: str, **facts: Any) -> Loss:
    """A loss of pairs that compares the policy with a reference."""
    return Loss(name, function, "preference", True, "pair", paper, equation, **facts)


def _alone(name: str, function: Callable[..., Tensor], paper: Paper, equation: str, **facts: Any) -> Loss:
    """A loss of pairs that looks at the policy alone."""
    reason = "the loss uses no reference"
    return Loss(name, function, "preference", False, "pair", paper, equation, None, no_value=reason, **facts)


def _softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


# fmt: off
# The entries are a table: one argument per line would hide it.
MARGIN: tuple[Loss, ...] = (
    _compared(
        "sigmoid", preference.sigmoid,
        Paper("Rafailov et al.", 2023, "2305.18290", "Eq. 7"),
        "-(1 - ε) log σ(β h) - ε log σ(-β h), ε = label_smoothing",
        at_reference=LOG2, chosen_gradient=-1, default_beta=0.1,
        options=frozenset({"label_smoothing"}), divergences=True,
    ),
    _compared(
        "robust", preference.robust,
        Paper("Chowdhury et al.", 2024, "2403.00409", "Section 3.1"),
        "[-(1 - ε) log σ(β h) + ε log σ(-β h)] / (1 - 2ε), ε = label_smoothing",
        at_reference=LOG2, chosen_gradient=-1, default_beta=0.1,
        options=frozenset({"label_smoothing"}), divergences=True,
    ),
    _compared(
        "ipo", preference.ipo,
        Paper("Azar et al.", 2023, "2310.12036", "Eq. 17, with means over tokens"),
        "(r_w/|y_w| - r_l/|y_l| - 1/(2β))²",
        at_reference=lambda beta: 0.25 / beta**2, chosen_gradient=-1, default_beta=0.1, sign_everywhere=False,
    ),
    _compared(
        "hinge", preference.hinge,
        Paper("Zhao et al.", 2023, "2305.10425", "Section 2; log-ratios as in Liu et al. 2023, 2309.06657"),
        "[1 - β h]₊",
        at_reference=1.0, chosen_gradient=-1, default_beta=0.1, divergences=True,
    ),
    _compared(
        "exo_pair", preference.exo_pair,
        Paper("Ji et al.", 2024, "2402.00856", "Eq. 16"),
        "σ(β h) log[σ(β h)/(1 - ε)] + σ(-β h) log[σ(-β h)/ε], ε = label_smoothing",
        at_reference=lambda label_smoothing: -LOG2 - 0.5 * math.log(label_smoothing * (1.0 - label_smoothing)),
        chosen_gradient=-1, default_beta=0.1,
        options=frozenset({"label_smoothing"}), sign_everywhere=False, divergences=True,
    ),
    _compared(
        "discopop", preference.discopop,
        Paper("Lu et al.", 2024, "2406.08414", "Eq. 5"),
        "(1 - s) (-log σ(β h)) + s exp(-β h), s = σ(β h/τ), τ = tau",
        at_reference=0.5 * (LOG2 + 1.0), chosen_gradient=1, default_beta=0.05,
        options=frozenset({"tau"}), sign_everywhere=False, divergences=True,
    ),
    _compared(
        "sigmoid_norm", preference.sigmoid_norm,
        Paper("Lambert et al.", 2024, "2411.15124", "length-normalised DPO"),
        "-log σ(β (r_w/|y_w| - r_l/|y_l|))",
        at_reference=LOG2, chosen_gradient=-1, default_beta=5.0,
    ),
    _compared(
        "length_controlled", preference.length_controlled,
        Paper("Park et al.", 2024, "2403.19159", "R-DPO"),
        "-log σ(β h + α (|y_w| - |y_l|)), α = alpha",
        at_reference=None, chosen_gradient=-1, default_beta=0.1, options=frozenset({"alpha"}), divergences=True,
        no_value="it depends on the two lengths; log 2 where they are equal",
    ),
    _compared(
        "dpop", preference.dpop,
        Paper("Pal et al.", 2024, "2402.13228", "Eq. 3"),
        "-log σ(β (h - λ [-r_w]₊)), λ = penalty",
        at_reference=LOG2, chosen_gradient=-1, default_beta=0.1, options=frozenset({"penalty"}),
    ),
)

ANCHORED: tuple[Loss, ...] = (
    _compared(
        "nca_pair", anchored.nca_pair,
        Paper("Chen et al.", 2024, "2402.05369", "Section 4.1"),
        "-log σ(β r_w) - ½ log σ(-β r_w) - ½ log σ(-β r_l)",
        at_reference=2.0 * LOG2, chosen_gradient=-1, default_beta=0.1, sign_everywhere=False,
    ),
    _compared(
        "bco_pair", anchored.bco_pair,
        Paper("Jung et al.", 2024, "2404.04656", "Section 4"),
        "-log σ(β r_w - δ) - log σ(-(β r_l - δ)), δ = delta, the running mean of β r",
        at_reference=lambda delta: _softplus(delta) + _softplus(-delta), chosen_gradient=-1, default_beta=0.1,
        options=frozenset({"delta"}), running_mean=True,
    ),
    _compared(
        "sppo_hard", anchored.sppo_hard,
        Paper("Wu et al.", 2024, "2405.00675", "Eq. 4.7"),
        "(r_w - 1/(2β))² + (r_l + 1/(2β))²",
        at_reference=lambda beta: 0.5 / beta**2, chosen_gradient=-1, default_beta=0.001, sign_everywhere=False,
    ),
    _compared(
        "apo_zero", anchored.apo_zero,
        Paper("D'Oosterlinck et al.", 2024, "2408.06266", "Eq. 7, plus 1"),
        "σ(-β r_w) + σ(β r_l)",
        at_reference=1.0, chosen_gradient=-1, default_beta=0.1,
    ),
    _compared(
        "apo_down", anchored.apo_down,
        Paper("D'Oosterlinck et al.", 2024, "2408.06266", "Eq. 8, plus 1"),
        "σ(β r_w) + σ(-β h)",
        at_reference=1.0, chosen_gradient=0, default_beta=0.1, sign_everywhere=False,
    ),
)

TRANSPORT: tuple[Loss, ...] = (
    _compared(
        "aot", transport.aot,
        Paper("Melnyk et al.", 2024, "2406.05882", "Section 3"),
        "-(1 - ε) log σ(β d) - ε log σ(-β d), d between equal ranks of log π(w)/π(l) and log π_ref(w)/π_ref(l)",
        at_reference=LOG2, chosen_gradient=-1, default_beta=0.1,
        options=frozenset({"label_smoothing"}), couples_batch=True,
    ),
    _compared(
        "aot_unpaired", transport.aot_unpaired,
        Paper("Melnyk et al.", 2024, "2406.05882", "Section 3"),
        "-(1 - ε) log σ(β d) - ε log σ(-β d), d between equal ranks of r_w and r_l",
        at_reference=LOG2, chosen_gradient=-1, default_beta=0.1,
        options=frozenset({"label_smoothing"}), couples_batch=True,
    ),
)

REFERENCE_FREE: tuple[Loss, ...] = (
    _alone(
        "sft", reference_free.sft,
        Paper("Pang et al.", 2024, "2404.19733", "Eq. 1, the likelihood term"),
        "-log π(y_w)/|y_w|",
        chosen_gradient=-1, default_beta=None,
    ),
    _alone(
        "simpo", reference_free.simpo,
        Paper("Meng et al.", 2024, "2405.14734", "Eq. 6"),
        "-log σ(β log π(y_w)/|y_w| - β log π(y_l)/|y_l| - γ), γ = gamma",
        chosen_gradient=-1, default_beta=2.0, options=frozenset({"gamma"}),
    ),
    _alone(
        "orpo", reference_free.orpo,
        Paper("Hong et al.", 2024, "2403.07691", "Eq. 6 and 7"),
        "-log π(y_w)/|y_w| - β log σ(log[p_w/(1 - p_w)] - log[p_l/(1 - p_l)]), p = π(y)^(1/|y|)",
        chosen_gradient=-1, default_beta=0.1,
    ),
    _alone(
        "cpo", reference_free.cpo,
        Paper("Xu et al.", 2024, "2401.08417", "Eq. 3, plus the likelihood term"),
        "-log σ(β log π(y_w) - β log π(y_l)) - c log π(y_w)/|y_w|, c = sft_weight",
        chosen_gradient=-1, default_beta=0.1, options=frozenset({"sft_weight"}),
    ),
)

RANKING: tuple[Loss, ...] = (
    Loss(
        "bradley_terry", ranking.bradley_terry, "ranking", False, "pair",
        Paper("Touvron et al.", 2023, "2307.09288", "Eq. 2; centring: Eisenstein et al. 2023, 2312.09244, Eq. 2"),
        "-log σ(s_w - s_l - m) + c (s_w + s_l)², s a score, m = margin, c = centring",
        at_reference=None, chosen_gradient=-1, default_beta=None, options=frozenset({"margin", "centring"}),
        no_value="a reward model has no reference; scores of zero and no margin give log 2",
    ),
)
