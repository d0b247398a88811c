"""Kind ``dpo_loss``: -log sigmoid(beta (r(chosen) - r(rejected))) with r = log pi - log ref (Rafailov 2023, eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trueup.preflight.conformance import pair_forms as pairs
from trueup.preflight.conformance.dpo_probes import PROBES
from trueup.preflight.conformance.forms import Change, suspects
from trueup.preflight.conformance.protocol import Case, Fault, Inputs, Kind, Oracle
from trueup.preflight.conformance.signatures import SIGNATURES


@dataclass(frozen=True)
class Form:
    """The parts in which such functions differ. The defaults are right.

    Attributes:
        policy: weights of log pi of chosen and rejected in the margin.
        ref: weights of the reference's.
        beta: what multiplies the margin, as a power of beta.
        outside: what multiplies the loss, as a power of beta.
        link: a key of ``LINKS``, or "ipo".
        sign: -1 if the loss has the other sign.
        reduce: how pairs become one number.
        spread: pairs compared with each other before the mean: "mean first", "broadcast".
    """

    policy: tuple[int, int] = (1, -1)
    ref: tuple[int, int] = (-1, 1)
    beta: int = 1
    outside: int = 0
    link: str = "log_sigmoid"
    sign: int = 1
    reduce: str = "right"
    spread: str = "no"


def _margins(inputs: Inputs, form: Form) -> np.ndarray:
    chosen = form.policy[0] * inputs["policy_chosen"] + form.ref[0] * inputs["ref_chosen"]
    rejected = form.policy[1] * inputs["policy_rejected"] + form.ref[1] * inputs["ref_rejected"]
    if form.spread == "broadcast":
        return chosen[:, None] + rejected[None, :]
    margins = chosen + rejected
    return margins.mean() if form.spread == "mean first" else margins


def oracle(**parts: object) -> Oracle:
    """What a function of a form returns."""
    form = Form(**parts)  # type: ignore[arg-type]

    def returned(inputs: Inputs, convention: str) -> np.ndarray:
        beta, margins = inputs["beta"], _margins(inputs, form)
        if form.link == "ipo":
            losses = (margins - 1 / (2 * beta**form.beta)) ** 2
        else:
            losses = pairs.LINKS[form.link](beta**form.beta * margins)
        return pairs.reduced(np.asarray(form.sign * beta**form.outside * losses), convention, form.reduce)

    return returned


NO_REFERENCE = Fault(
    "reference-ignored",
    "The reference is not in the margin.",
    "The loss falls; nothing holds the policy near where it began. CPO and SimPO have none on purpose.",
    "(policy_chosen - ref_chosen) - (policy_rejected - ref_rejected).",
)
REFERENCE_ADDED = Fault(
    "reference-added",
    "The reference is added in place of being subtracted, or its sides have changed places.",
    "The loss falls; it starts elsewhere than at log 2.",
    "Subtract ref_chosen from policy_chosen, ref_rejected from policy_rejected.",
)
HALF_REFERENCE = Fault(
    "reference-on-one-side",
    "The reference is subtracted from one side only.",
    "The loss falls; it starts elsewhere than at log 2, by the length of a response.",
    "Subtract it from both sides.",
)
POLICY_SIDES = Fault(
    "policy-sides-swapped",
    "Chosen and rejected have changed places in the policy's difference, not in the reference's.",
    "The loss falls; the model learns to prefer what people rejected.",
    "policy_chosen - policy_rejected.",
)
ONE_SIDE = Fault(
    "one-side-missing",
    "One side of the pair is not in the margin.",
    "The loss falls: a response is made likelier or unlikelier, against nothing.",
    "chosen minus rejected.",
)
NO_BETA = Fault(
    "beta-missing",
    "Beta is not used: it is 1.",
    "The loss starts at log 2 and falls at once; the curve is that of a large rate.",
    "beta * margin inside logsigmoid.",
)
BETA_OUTSIDE = Fault(
    "beta-outside",
    "Beta multiplies the loss and not the margin.",
    "It scales the learning rate; how far the policy may go is as with beta = 1. The start is beta log 2.",
    "beta * margin inside logsigmoid.",
)
BETA_TWICE = Fault(
    "beta-twice",
    "Beta is in the loss twice: squared, or inside and outside.",
    "The loss starts at log 2, or nearly stands still.",
    "Multiply by beta in one place.",
)
BETA_DIVIDES = Fault(
    "beta-divides",
    "The margin is divided by beta.",
    "The loss starts at log 2; a larger beta holds the policy less, not more.",
    "Multiply by beta.",
)
IPO = Fault(
    "is-ipo",
    "This is IPO: the squared distance of the margin from 1 / (2 beta).",
    "It falls.",
    "Name it so, or use -logsigmoid(beta * margin).",
)
SQUARE = Fault(
    "is-square",
    "A squared distance of the scaled margin from 1 takes the place of log sigmoid.",
    "It falls; pairs that are won too clearly are pulled back.",
    "Name it so, or use -logsigmoid(beta * margin).",
)

CHANGES: list[Change] = [
    (pairs.SIGN, {"sign": -1}),
    (pairs.SWAPPED, {"policy": (-1, 1), "ref": (1, -1)}),
    (NO_REFERENCE, {"ref": (0, 0)}),
    (REFERENCE_ADDED, {"ref": (1, -1)}),
    (POLICY_SIDES, {"policy": (-1, 1)}),
    (HALF_REFERENCE, {"ref": (-1, 0)}),
    (HALF_REFERENCE, {"ref": (0, 1)}),
    (ONE_SIDE, {"policy": (1, 0), "ref": (-1, 0)}),
    (ONE_SIDE, {"policy": (0, -1), "ref": (0, 1)}),
    (NO_BETA, {"beta": 0}),
    (BETA_OUTSIDE, {"beta": 0, "outside": 1}),
    (BETA_TWICE, {"beta": 2}),
    (BETA_TWICE, {"outside": 1}),
    (BETA_DIVIDES, {"beta": -1}),
    (pairs.NO_LOG, {"link": "sigmoid"}),
    (pairs.NO_LOG, {"link": "rising sigmoid"}),
    (pairs.NO_LOG, {"link": "falling sigmoid"}),
    (pairs.NO_SIGMOID, {"link": "none"}),
    (pairs.NO_SIGMOID, {"link": "exponential"}),
    (pairs.TWICE, {"link": "twice"}),
    (IPO, {"link": "ipo"}),
    (pairs.HINGE, {"link": "hinge"}),
    (SQUARE, {"link": "square"}),
    (pairs.SMOOTHED, {"link": "smoothed"}),
    (pairs.SUM, {"reduce": "sum"}),
    (pairs.MEAN_FIRST, {"spread": "mean first"}),
    (pairs.BROADCAST, {"spread": "broadcast", "reduce": "mean"}),
]


def _case(name: str, seed: int, pairs: int, beta: float) -> Case:
    rng = np.random.default_rng(seed)
    ref = -rng.uniform(5, 25, (2, pairs))
    policy = ref + rng.normal(0, 1.5, (2, pairs))
    names = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")
    return Case(name, {**dict(zip(names, (*policy, *ref), strict=True)), "beta": beta})


CASES = (_case("3 pairs, beta 0.1", 0, 3, 0.1), _case("5 pairs, beta 0.4", 1, 5, 0.4), _case("a pair", 2, 1, 0.25))
KIND = Kind(SIGNATURES["dpo_loss"], CASES, oracle(), pairs.CONVENTIONS, suspects(CHANGES, oracle), PROBES)
