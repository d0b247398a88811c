"""Kind ``reward_loss``: -log sigmoid(score(chosen) - score(rejected) - margin); the margin as in Llama 2, eq. 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trueup.preflight.conformance import pair_forms as pairs
from trueup.preflight.conformance.forms import Change, suspects
from trueup.preflight.conformance.pair_probes import gradient, stable
from trueup.preflight.conformance.protocol import Case, Fault, Inputs, Kind, Oracle
from trueup.preflight.conformance.signatures import SIGNATURES
from trueup.preflight.conformance.untouched import left_alone


@dataclass(frozen=True)
class Form:
    """The parts in which such functions differ. The defaults are right.

    Attributes:
        scores: weights of chosen and rejected.
        margin: weight of the margin.
        link, sign, reduce, spread: as for DPO.
    """

    scores: tuple[int, int] = (1, -1)
    margin: int = -1
    link: str = "log_sigmoid"
    sign: int = 1
    reduce: str = "right"
    spread: str = "no"


def oracle(**parts: object) -> Oracle:
    """What a function of a form returns."""
    form = Form(**parts)  # type: ignore[arg-type]

    def returned(inputs: Inputs, convention: str) -> np.ndarray:
        chosen = form.scores[0] * inputs["chosen_scores"] + form.margin * inputs.get("margin", 0.0)
        rejected = form.scores[1] * inputs["rejected_scores"]
        margins = chosen[:, None] + rejected if form.spread == "broadcast" else chosen + rejected
        margins = margins.mean() if form.spread == "mean first" else margins
        return pairs.reduced(np.asarray(form.sign * pairs.LINKS[form.link](margins)), convention, form.reduce)

    return returned


MARGIN_ADDED = Fault(
    "margin-added",
    "The margin is added in place of being subtracted.",
    "The loss falls faster than without; clear pairs are learnt less, not more.",
    "score(chosen) - score(rejected) - margin.",
)
MARGIN_IGNORED = Fault(
    "margin-ignored",
    "The function takes a margin and does not use it.",
    "The loss falls; all pairs count alike.",
    "score(chosen) - score(rejected) - margin.",
)
SQUARE = Fault(
    "is-squared-error",
    "The squared distance of the score difference from 1 takes the place of log sigmoid.",
    "It falls; scores are pulled to a fixed distance and are no log-odds.",
    "-logsigmoid(score(chosen) - score(rejected)).",
)

CHANGES: list[Change] = [
    (pairs.SIGN, {"sign": -1}),
    (pairs.SWAPPED, {"scores": (-1, 1)}),
    (pairs.NO_LOG, {"link": "sigmoid"}),
    (pairs.NO_LOG, {"link": "rising sigmoid"}),
    (pairs.NO_LOG, {"link": "falling sigmoid"}),
    (pairs.NO_SIGMOID, {"link": "none"}),
    (pairs.NO_SIGMOID, {"link": "exponential"}),
    (pairs.TWICE, {"link": "twice"}),
    (pairs.HINGE, {"link": "hinge"}),
    (SQUARE, {"link": "square"}),
    (pairs.SMOOTHED, {"link": "smoothed"}),
    (MARGIN_ADDED, {"margin": 1}),
    (MARGIN_IGNORED, {"margin": 0}),
    (pairs.SUM, {"reduce": "sum"}),
    (pairs.MEAN_FIRST, {"spread": "mean first"}),
    (pairs.BROADCAST, {"spread": "broadcast", "reduce": "mean"}),
]


def _case(name: str, seed: int, pairs: int) -> Case:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.5, (2, pairs))
    return Case(name, {"chosen_scores": scores[0], "rejected_scores": scores[1], "margin": rng.uniform(0.2, 1, pairs)})


def _inputs(differences: np.ndarray) -> Inputs:
    rejected = np.linspace(-1, 1, len(differences))
    return {
        "chosen_scores": rejected + differences,
        "rejected_scores": rejected,
        "margin": np.zeros(len(differences)),
    }


_DIFFERENCES = np.array([1.5, -2.0, 0.3, 0.8])
PROBES = (
    gradient(_inputs(_DIFFERENCES), ("chosen_scores", "rejected_scores"), _DIFFERENCES, 1.0),
    stable(lambda margin: _inputs(np.array([margin])), "chosen_scores"),
    left_alone(_inputs(_DIFFERENCES)),
)
CASES = (_case("3 pairs", 0, 3), _case("5 pairs", 1, 5), _case("a pair", 2, 1))
KIND = Kind(SIGNATURES["reward_loss"], CASES, oracle(), pairs.CONVENTIONS, suspects(CHANGES, oracle), PROBES)
