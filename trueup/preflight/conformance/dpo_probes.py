"""What values of a DPO loss do not show: gradients, the start, large margins, and what it hands to the log."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trueup.preflight.conformance.pair_probes import gradient, stable
from trueup.preflight.conformance.protocol import Fault, Inputs, Line, Probe, Subject
from trueup.preflight.conformance.untouched import constant, left_alone

START = Fault(
    "start-not-log-2",
    "Where policy and reference are equal the loss is not log 2.",
    "",
    "Look for a term that is there at equality: a margin, an epsilon, smoothing.",
)
REFERENCE_TRAINED = Fault(
    "gradient-to-reference",
    "A gradient reaches the reference's log-probabilities.",
    "Harmless where the reference is computed under no_grad; otherwise it is trained, or costs memory.",
    "Compute the reference under torch.no_grad(), or detach it here.",
)
RAW_MARGIN = Fault(
    "logged-margin-raw",
    "The margin for the log is not multiplied by beta.",
    "The loss is right. The curve is 1 / beta times that of other tools, whose rewards/margins are scaled.",
    "Log beta * margin, or name it as log-ratios.",
)
RAW_REWARDS = Fault(
    "logged-rewards-raw",
    "The implicit rewards for the log are not multiplied by beta, or lack the reference.",
    "The loss is right; rewards of runs with different betas cannot be compared, nor with other tools.",
    "beta * (policy - reference) for each side.",
)
TIES = Fault(
    "ties-count-as-right",
    "The accuracy for the log counts a margin of 0 as won.",
    "At the start, where policy and reference are equal, it is 1 and seems solved.",
    "Count margin > 0 and report ties apart; 0 or 0.5 for them.",
)

BETA = 0.2
_CHOSEN, _REJECTED = np.array([1.5, -2.0, 0.7, 3.0]), np.array([-0.5, 1.0, 0.1, 2.0])
"""Log-ratios, policy over reference, of four pairs."""


def _inputs(chosen: np.ndarray, rejected: np.ndarray) -> Inputs:
    ref_chosen, ref_rejected = -10 - np.arange(len(chosen)) / 2, -12 + np.arange(len(chosen)) / 4
    return {
        "policy_chosen": ref_chosen + chosen,
        "policy_rejected": ref_rejected + rejected,
        "ref_chosen": ref_chosen,
        "ref_rejected": ref_rejected,
        "beta": BETA,
    }


PLAIN = _inputs(_CHOSEN, _REJECTED)
EQUAL = _inputs(np.zeros(4), np.zeros(4))


def _look_at_start(subject: Subject) -> Line:
    check = "log 2 where policy = reference"
    with torch.no_grad():
        found = subject.ask(subject.tensors(EQUAL)).double()
    if bool(((found - math.log(2)).abs() < 1e-6).all()):
        return Line(check, "ok")
    return Line(check, "fault", (START,), f"{float(found.mean()):.8g}, not {math.log(2):.8g}")


def _told(given: Any) -> Iterator[tuple[str, Tensor]]:
    """What is returned beside the loss, with the names that it has; a second and a third are taken for rewards."""
    if isinstance(given, Mapping):
        items = list(given.items())
    elif hasattr(given, "_asdict"):
        items = list(given._asdict().items())
    elif isinstance(given, tuple | list):
        items = list(zip(("loss", "chosen_rewards", "rejected_rewards"), given, strict=False))
        if len(given) > 1 and isinstance(given[1], Mapping):
            items = list(given[1].items())
    else:
        items = []
    for name, value in items:
        if isinstance(value, Tensor | float):
            yield str(name).lower(), torch.as_tensor(value).detach().double()


def _like(value: Tensor, expected: np.ndarray) -> bool:
    """Each pair's, their mean or their sum."""
    for shown in (expected, expected.mean(), expected.sum()):
        if value.shape == np.shape(shown) and np.allclose(value.numpy(), shown, rtol=1e-3, atol=1e-5):
            return True
    return False


def _told_at(subject: Subject, inputs: Inputs) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(_told(subject.everything(subject.tensors(inputs))))


def _look_at_log(subject: Subject) -> Line:
    check = "logged margins and rewards"
    told = {name: value for name, value in _told_at(subject, PLAIN).items() if "margin" in name or "reward" in name}
    if not told:
        return Line(check, "skipped", text="it returns none by name")
    wrong: list[Fault] = []
    for name, value in told.items():
        margin = _CHOSEN - _REJECTED
        side = _CHOSEN if "chosen" in name else _REJECTED
        policy = PLAIN["policy_chosen" if "chosen" in name else "policy_rejected"]
        if "margin" in name and _like(value, margin):
            wrong.append(RAW_MARGIN)
        if "reward" in name and "margin" not in name and ("chosen" in name or "rejected" in name):
            wrong += [RAW_REWARDS] * any(_like(value, raw) for raw in (side, policy, BETA * policy))
    if wrong:
        return Line(check, "fault", tuple(dict.fromkeys(wrong)), "as the loss has it before it is multiplied by beta")
    return Line(check, "ok")


def _look_at_accuracy(subject: Subject) -> Line:
    check = "logged accuracy"
    told = {name: value for name, value in _told_at(subject, EQUAL).items() if "acc" in name}
    if not told:
        return Line(check, "skipped", text="it returns none by name")
    ties = [name for name, value in told.items() if bool((value == 1).all())]
    if ties:
        return Line(check, "note", (TIES,), f"{', '.join(ties)} is 1 where all margins are 0")
    return Line(check, "ok")


def _pair(margin: float) -> Inputs:
    return _inputs(np.array([margin / BETA]), np.zeros(1))


PROBES = (
    gradient(PLAIN, ("policy_chosen", "policy_rejected"), BETA * (_CHOSEN - _REJECTED), BETA),
    stable(_pair, "policy_chosen"),
    Probe("log 2 where policy = reference", _look_at_start),
    Probe("logged margins and rewards", _look_at_log),
    Probe("logged accuracy", _look_at_accuracy),
    constant(PLAIN, ("ref_chosen", "ref_rejected"), REFERENCE_TRAINED),
    left_alone(PLAIN),
)
