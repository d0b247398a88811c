"""The forms that ``rollout.reward`` may have: one reward, or weighted parts.

Only the form is judged here, without torch: which rules there are and what options they have is known to `rewards`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trueup.errors import nearest

KINDS = ("path", "kind", "judge")
"""Keys of which a part has one: a folder or file.py:function, a rule, the base of an endpoint."""

OF_A_PART = ("weight", "name", "standardise")
"""Keys that every part may have."""

_KEY = "rollout.reward"


@dataclass(frozen=True)
class RewardPart:
    """One part of a reward.

    Attributes:
        kind: one of ``KINDS``, or ``text`` where a bare text was given.
        target: the folder, ``file.py:function``, rule or address.
        options: what else was given.
        name: of its metrics; None = its own.
        weight: what its score is multiplied by.
        standardise: bring its scores to mean 0 and standard deviation 1 over a rollout.
    """

    kind: str
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    weight: float = 1.0
    standardise: bool = False


def reward_parts(value: Any) -> tuple[RewardPart, ...]:
    """Take a setting ``rollout.reward`` apart.

    Args:
        value: a text (folder, ``file.py:function``, rule); a mapping with one of ``KINDS``; a list of such texts and
            mappings; or a mapping from texts to weights.

    Raises:
        ValueError: it is none of these; says which part is wrong and how.
    """
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        raise ValueError(f"{_KEY}: keys must be texts: put the others in quotes, in {value!r}")
    if isinstance(value, dict) and value and all(map(_is_number, value.values())):
        parts = tuple(_part(text, f"{_KEY}.{text}", weight) for text, weight in value.items())
    elif isinstance(value, list | tuple) and value:
        parts = tuple(_part(part, f"{_KEY}[{number}]") for number, part in enumerate(value))
    else:
        parts = (_part(value, _KEY),)
    if not any(part.weight for part in parts):
        raise ValueError(f"{_KEY}: every weight is 0, so nothing would be learned; give at least one part a weight")
    return parts


_WANTED = "give a folder, file.py:function, a rule, a mapping with path, kind or judge, or a list of these"


def _part(given: Any, where: str, weight: float = 1.0) -> RewardPart:
    if isinstance(given, dict):
        return _of_mapping(given, where)
    if isinstance(given, bool) or not isinstance(given, str | int) or given == "":
        raise ValueError(f"{where}: {_WANTED}, not {given!r}")
    return RewardPart("text", str(given), weight=_weight(weight, where))


def _of_mapping(given: Mapping[Any, Any], where: str) -> RewardPart:
    kinds = [kind for kind in KINDS if kind in given]
    if len(kinds) != 1:
        raise ValueError(f"{where}: {_which(given, kinds)}")
    kind, target = kinds[0], given[kinds[0]]
    if isinstance(target, bool) or not isinstance(target, str | int) or target == "":
        raise ValueError(f"{where}.{kind}: must be a text, not {target!r}")
    options = {str(key): option for key, option in given.items() if key not in (kind, *OF_A_PART)}
    if kind == "path" and options:
        unknown = next(iter(options))
        raise ValueError(f"{where}: unknown key '{unknown}'{nearest(unknown, OF_A_PART)}")
    name, standardise = given.get("name"), given.get("standardise", False)
    if name is not None and not (isinstance(name, str) and re.fullmatch(r"[\w.-]+", name)):
        raise ValueError(f"{where}.name: {name!r} must be made of letters, digits, '_', '-' and '.'")
    if not isinstance(standardise, bool):
        raise ValueError(f"{where}.standardise: must be true or false, not {standardise!r}")
    return RewardPart(kind, str(target), options, name, _weight(given.get("weight", 1.0), where), standardise)


def _weight(given: Any, where: str) -> float:
    if not _is_number(given) or not math.isfinite(given):
        raise ValueError(f"{where}.weight: must be a number, not {given!r}")
    return float(given)


def _which(given: Mapping[Any, Any], kinds: Sequence[str]) -> str:
    if kinds:
        return f"has {' and '.join(kinds)}; a part is one of them"
    hints = [f"'{key}'{near}" for key in given if (near := nearest(str(key), KINDS))]
    return f"{_WANTED}; it has {hints[0] if hints else ', '.join(map(repr, given)) or 'nothing'}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
