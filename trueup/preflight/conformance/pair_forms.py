"""What the losses of pairs share: a margin becomes a loss, by the right link or by one that people write instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from trueup.preflight.conformance.protocol import Fault

CONVENTIONS = {"mean": "the mean over pairs", "per pair": "one loss for each pair [B]"}

Link = Callable[[np.ndarray], np.ndarray]


def _loss(margin: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, -margin)


LINKS: Mapping[str, Link] = {
    "log_sigmoid": _loss,
    "sigmoid": lambda margin: -1 / (1 + np.exp(-margin)),
    "rising sigmoid": lambda margin: 1 / (1 + np.exp(-margin)),
    "falling sigmoid": lambda margin: 1 / (1 + np.exp(margin)),
    "none": lambda margin: -margin,
    "exponential": lambda margin: np.exp(-margin),
    "twice": lambda margin: np.logaddexp(0, -1 / (1 + np.exp(-margin))),
    "hinge": lambda margin: np.maximum(0, 1 - margin),
    "square": lambda margin: (1 - margin) ** 2,
    "smoothed": lambda margin: 0.9 * _loss(margin) + 0.1 * _loss(-margin),
}
"""The loss as a function of the scaled margin; all but the first are faults."""

SIGN = Fault(
    "sign",
    "The minus before log sigmoid is missing: the loss is negative and falls as preferences are unlearnt.",
    "The loss goes down, without a floor, which looks like very good progress.",
    "-logsigmoid(margin).",
)
SWAPPED = Fault(
    "chosen-rejected-swapped",
    "Chosen and rejected have changed places in the margin.",
    "The loss starts at log 2 and falls; the model learns to prefer what people rejected.",
    "chosen - rejected inside logsigmoid.",
)
NO_LOG = Fault(
    "no-log",
    "The sigmoid itself is the loss, its logarithm is missing.",
    "It falls; pairs that are far wrong, which should weigh the most, have nearly no gradient.",
    "logsigmoid in place of sigmoid.",
)
NO_SIGMOID = Fault(
    "no-sigmoid",
    "The margin itself, or its exponential, is the loss: the log sigmoid is missing.",
    "It falls; pairs that are won already are pushed on as strongly as the others, without end.",
    "-logsigmoid(margin).",
)
TWICE = Fault(
    "sigmoid-twice",
    "A sigmoid is applied twice: the loss stays between 0.31 and 0.69.",
    "It falls a little and seems to have converged.",
    "logsigmoid, or binary cross-entropy with logits, on the margin itself.",
)
HINGE = Fault(
    "is-hinge",
    "This is the hinge loss (SLiC), not log sigmoid.",
    "It falls, and to 0.",
    "Name it so, or use -logsigmoid.",
)
SMOOTHED = Fault(
    "is-smoothed",
    "A tenth of label smoothing is in the loss: this is conservative DPO.",
    "It starts at log 2 and has its floor above 0.",
    "Name it so, or leave the smoothing out.",
)
SUM = Fault(
    "sum-not-mean",
    "The sum over pairs in place of their mean.",
    "The learning rate grows with the batch; a last batch that is short weighs less.",
    "mean() over pairs, or return one loss for each.",
)
MEAN_FIRST = Fault(
    "mean-before-the-link",
    "Margins are averaged before log sigmoid: the batch counts as one pair.",
    "The loss starts at log 2 and falls; no pair is weighted by how wrong it is.",
    "logsigmoid of each pair's margin, then the mean.",
)
BROADCAST = Fault(
    "broadcast",
    "[B,1] meets [B]: every pair is compared with every other, [B,B].",
    "The mean hides the shape; the loss starts at log 2 and falls slowly.",
    "squeeze(-1) one side: all of them are [B].",
)
REDUCTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda losses: np.asarray(losses.mean()),
    "sum": lambda losses: np.asarray(losses.sum()),
}


def reduced(losses: np.ndarray, convention: str, reduce: str = "right") -> np.ndarray:
    """Losses of the pairs as they are returned under a convention, or as a fault has it."""
    if reduce == "right":
        return losses if convention == "per pair" else np.asarray(losses.mean())
    return REDUCTIONS[reduce](losses)
