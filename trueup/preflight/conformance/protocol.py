"""What the kit is made of: how a kind of function is called, what is right, what each fault would give, a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:  # the help of the verb reads signatures, and must not wait for torch
    from torch import Tensor

Inputs = Mapping[str, Any]
"""Parameter name of the signature -> float64 array, integer array, bool array or plain number."""

Oracle = Callable[[Inputs, str], np.ndarray]
"""(inputs, convention) -> what a function would return, in float64 and by numpy alone."""

Status = Literal["ok", "fault", "note", "skipped"]


@dataclass(frozen=True)
class Signature:
    """How a function of a kind is called.

    Attributes:
        words: the kind in a few words.
        call: a call with our parameter names and shapes.
        returns: what it returns, with shapes.
        names: our parameter name -> other names that people give it; in the order of places.
        optional: parameters that a function need not take.
        instead: a parameter that stands for several others -> those.
    """

    words: str
    call: str
    returns: str
    names: Mapping[str, Sequence[str]]
    optional: frozenset[str] = frozenset()
    instead: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """A fault by name: what is wrong, why nobody notices (empty if they do), what to change."""

    name: str
    wrong: str
    silent: str
    remedy: str


@dataclass(frozen=True)
class Suspect:
    """A fault together with what a function that has it, and those in ``also``, would return."""

    fault: Fault
    oracle: Oracle
    also: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Case:
    """Made inputs, and what is special about them."""

    name: str
    inputs: Inputs


@dataclass(frozen=True)
class Line:
    """One check of a verdict."""

    check: str
    status: Status
    faults: tuple[Fault, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Subject:
    """Somebody's function, ready to be asked.

    Attributes:
        ask: inputs (tensors where they were arrays) -> its first result as a tensor, with gradient.
        everything: the same, all that it returns.
        tensors: inputs as float32 tensors; those named require a gradient.
        convention: the right convention that its values follow, or the nearest one.
        takes: the names of the signature that it has parameters for.
    """

    ask: Callable[[Inputs], Tensor]
    everything: Callable[[Inputs], Any]
    tensors: Callable[..., dict[str, Any]]
    convention: str
    takes: frozenset[str]


@dataclass(frozen=True)
class Probe:
    """A property that a right function has whatever its values: gradients, dtypes, stability, inputs left alone."""

    check: str
    look: Callable[[Subject], Line]


@dataclass(frozen=True)
class Kind:
    """All that is known of a kind of function.

    Attributes:
        signature: how it is called.
        cases: inputs on which every suspect differs from what is right.
        right: oracle of what is right under each of ``conventions``.
        conventions: name -> words; all are right, and people mean different ones.
        suspects: the faults that values show, likeliest first.
        probes: the faults that values do not show.
    """

    signature: Signature
    cases: Sequence[Case]
    right: Oracle
    conventions: Mapping[str, str]
    suspects: Sequence[Suspect]
    probes: Sequence[Probe]


@dataclass(frozen=True)
class Verdict:
    """What was found of a function."""

    kind: str
    call: str
    bound: str
    lines: Sequence[Line]
    conventions: Mapping[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> tuple[str, ...]:
        """Names of the faults, each once."""
        return _names(self.lines, "fault")

    @property
    def notes(self) -> tuple[str, ...]:
        """Names of what is worth knowing and not wrong."""
        return _names(self.lines, "note")

    @property
    def conforms(self) -> bool:
        """No check found a fault."""
        return all(line.status != "fault" for line in self.lines)


def _names(lines: Sequence[Line], status: Status) -> tuple[str, ...]:
    found = (fault.name for line in lines if line.status == status for fault in line.faults)
    return tuple(dict.fromkeys(found))
