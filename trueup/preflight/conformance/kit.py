"""The kit: call the function on made inputs, find what its values are, then look at what values do not show."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trueup.errors import UserError, nearest
from trueup.preflight.conformance import dpo_loss, gae, grpo_loss, kl, reward_loss, token_logps
from trueup.preflight.conformance.call import Bound, bind
from trueup.preflight.conformance.protocol import Case, Fault, Inputs, Kind, Line, Oracle, Subject, Verdict

KINDS: dict[str, Kind] = {
    "token_logps": token_logps.KIND,
    "dpo_loss": dpo_loss.KIND,
    "grpo_loss": grpo_loss.KIND,
    "gae": gae.KIND,
    "kl": kl.KIND,
    "reward_loss": reward_loss.KIND,
}
RELATIVE, ABSOLUTE = 1e-4, 1e-5
COARSE = 0.03
"""Relative error of a few operations in bfloat16, which has eight bits: 0.4 per cent each."""

UNKNOWN = Fault(
    "unknown-values",
    "The values are wrong, and like those of no fault that is known here.",
    "",
    "Work the smallest case out by hand; state the call if the inputs are meant otherwise (--call).",
)
SHAPE = Fault(
    "wrong-shape",
    "The result has none of the shapes that are expected.",
    "Broadcasting goes on with it: [B] and [B,1] make [B,B].",
    "Return one of the shapes of the kind; look for a missing squeeze, sum or mean.",
)
COARSE_FLOATS = Fault(
    "low-precision",
    "The values are right to two or three digits only: a step is computed in bfloat16 or float16.",
    "The error looks like noise, and it is as large as the differences between policy and reference.",
    "Compute log-softmax, sums and the loss in float32 (`.float()` before them).",
)
BACKWARD = Fault(
    "backward-fails",
    "The gradient cannot be computed: backward raises.",
    "",
    "Replace operations in place on what the gradient needs; see the message.",
)


def check(
    function: Callable[..., Any], kind: str, *, call: str | None = None, expect: Mapping[str, str] | None = None
) -> Verdict:
    """Call a function on the cases of its kind and say what is wrong with it.

    Args:
        function: the function.
        kind: a key of ``KINDS``.
        call: an expression of ``f`` and our parameter names that calls it; found out from its parameters if None.
        expect: ``{"convention": name}`` where only one of the right conventions is meant.

    Raises:
        UserError: it cannot be called.
    """
    known = KINDS[kind]
    conventions = _meant(known, expect or {})
    bound = bind(function, known.signature, call)
    unused = known.signature.optional - bound.takes
    cases = [Case(case.name, {k: v for k, v in case.inputs.items() if k not in unused}) for case in known.cases]
    ask = functools.partial(_ask, bound)
    answers = [ask(tensors(case.inputs)).detach().double().numpy() for case in cases]
    line, convention = _judge(known, cases, answers, conventions)
    if line.status == "fault":
        reason = "the values are wrong"
        rest = [Line(probe.check, "skipped", text=reason) for probe in known.probes]
        return Verdict(kind, bound.call, bound.bound, [line, *rest])
    subject = Subject(ask, bound.invoke, tensors, convention, bound.takes)
    lines = [line, *(_probed(probe.check, probe.look, subject) for probe in known.probes)]
    return Verdict(kind, bound.call, bound.bound, lines, {"convention": known.conventions[convention]})


def tensors(inputs: Inputs, *with_gradient: str) -> dict[str, Any]:
    """Arrays as new tensors, float32 where they are float64; those named require a gradient."""
    made = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, np.ndarray):
            tensor = torch.tensor(value)
            made[name] = tensor.float() if tensor.is_floating_point() else tensor
    for name in with_gradient:
        made[name].requires_grad_()
    return made


def _ask(bound: Bound, inputs: Inputs) -> Tensor:
    given = bound.invoke(inputs)
    result = given
    if isinstance(result, Mapping):
        result = result.get("loss", next(iter(result.values()), None))
    elif isinstance(result, tuple | list) and result:
        result = result[0]
    elif not isinstance(result, Tensor):
        result = getattr(result, "loss", result)
    if isinstance(result, Tensor):
        return result
    if isinstance(result, float | int | np.ndarray | np.floating):
        return torch.as_tensor(result)
    raise UserError(f"{bound.call} returns {type(given).__name__}; a tensor is expected, alone or first of a tuple")


def _meant(kind: Kind, expect: Mapping[str, str]) -> list[str]:
    """The conventions that count as right, all of them if none is asked for."""
    for name, value in expect.items():
        if name != "convention":
            raise UserError(f"--expect {name}={value}: '{name}' is not known; write --expect convention=NAME")
        if value not in kind.conventions:
            names = "; ".join(kind.conventions)
            raise UserError(f"--expect: '{value}' is no convention of this kind ({names}){nearest(value, names)}")
    return [expect["convention"]] if expect else list(kind.conventions)


def _judge(
    kind: Kind, cases: Sequence[Case], answers: Sequence[np.ndarray], conventions: Sequence[str]
) -> tuple[Line, str]:
    """The line on the values, and the convention that they follow."""

    def follows(oracle: Oracle, among: Sequence[str], relative: float = RELATIVE) -> str | None:
        return next((name for name in among if _fits(oracle, name, cases, answers, relative)), None)

    if found := follows(kind.right, conventions):
        return Line("values", "ok", text=f"{len(cases)} cases, {found}"), found
    for suspect in kind.suspects:
        if found := follows(suspect.oracle, conventions):
            faults = (suspect.fault, *suspect.also)
            return Line("values", "fault", faults, f"all {len(cases)} cases fit, as {found}"), found
    if found := follows(kind.right, conventions, COARSE):
        return Line("values", "fault", (COARSE_FLOATS,), f"otherwise {found}"), found
    if found := follows(kind.right, list(kind.conventions)):
        return Line("values", "fault", (UNKNOWN,), f"it is right as {found}, which is not what was expected"), found
    return _unlike(kind, cases, answers, conventions), conventions[0]


def _fits(
    oracle: Oracle, convention: str, cases: Sequence[Case], answers: Sequence[np.ndarray], relative: float
) -> bool:
    return all(
        close(answer, oracle(case.inputs, convention), relative) for case, answer in zip(cases, answers, strict=True)
    )


def close(answer: np.ndarray, expected: np.ndarray, relative: float = RELATIVE) -> bool:
    """Equal in shape, and nearly in value; where NaN is expected anything will do."""
    expected = np.asarray(expected)
    if answer.shape != expected.shape:
        return False
    counted = ~np.isnan(expected)
    least = max(ABSOLUTE, 0.1 * relative * float(np.abs(expected[counted]).max(initial=0)))
    return np.allclose(answer[counted], expected[counted], rtol=relative, atol=least)


def _unlike(kind: Kind, cases: Sequence[Case], answers: Sequence[np.ndarray], conventions: Sequence[str]) -> Line:
    """The smallest case that fails, with what came and what should have come."""
    wanted = [[np.asarray(kind.right(case.inputs, name)) for name in conventions] for case in cases]
    by_size = sorted(range(len(cases)), key=lambda i: sum(np.size(v) for v in cases[i].inputs.values()))
    for i in by_size:
        if answers[i].shape not in [right.shape for right in wanted[i]]:
            shapes = ", ".join(dict.fromkeys(str(list(right.shape)) for right in wanted[i]))
            return Line("values", "fault", (SHAPE,), f"{cases[i].name}: {list(answers[i].shape)}, expected {shapes}")
    pairs = [(i, right) for i in by_size for right in wanted[i] if right.shape == answers[i].shape]
    i, right = next(((i, right) for i, right in pairs if not close(answers[i], right)), pairs[0])
    text = f"{cases[i].name}: got {_shown(answers[i])}, expected {_shown(right)}"
    return Line("values", "fault", (UNKNOWN,), text)


def _shown(values: np.ndarray, most: int = 8) -> str:
    flat = [f"{value:.5g}" for value in np.ravel(values)]
    return ", ".join(flat[:most]) + (", ..." if len(flat) > most else "")


def _probed(name: str, look: Callable[[Subject], Line], subject: Subject) -> Line:
    try:
        return look(subject)
    except UserError as error:  # its values are right: what a probe asks beyond them need not be meant to work
        return Line(name, "skipped", text=f"it fails there ({error})")
    except RuntimeError as error:
        return Line(name, "fault", (BACKWARD,), str(error).partition(". Hint")[0])
