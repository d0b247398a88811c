"""A reward function of the user's own, from a Python file; one that was written for TRL's GRPO works as it is.

A function is called once for a rollout, with those of these lists that its parameters name (all of them if it takes
``**kwargs``), one entry a response:

- ``prompts``: text where the data hold text, a list of ``{"role", "content"}`` where they hold conversations;
- ``completions``: text, or for conversations a list with one ``{"role": "assistant", "content": text}``;
- ``completion_ids``: the sampled token ids, the terminator included;
- ``responses``: text without the terminator, whatever the data hold;
- ``ended``: whether the response stopped by itself;
- ``id`` and every column of the data that made no prompt.

It returns one number a response, or None where it does not apply.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.errors import RunError, UserError, nearest
from trueup.rewards.protocol import Answer, TextReward
from trueup.rewards.user_file import run_file
from trueup.runtime import fingerprint

_LARGEST = 3.4e38
"""Scores are kept in float32, which ends here."""

_Cell = Callable[[Answer], Any]
"""What an answer has under one name."""

_ALWAYS: Mapping[str, _Cell] = {
    "responses": lambda answer: answer.response,
    "ended": lambda answer: answer.ended,
    "completion_ids": lambda answer: list(answer.tokens),
    "id": lambda answer: answer.id,
}

_OF_TEXTS: Mapping[str, _Cell] = {
    "prompts": lambda answer: answer.prompt[-1].content,
    "completions": lambda answer: answer.response,
}

_OF_CONVERSATIONS: Mapping[str, _Cell] = {
    "prompts": lambda answer: [{"role": turn.role, "content": turn.content} for turn in answer.prompt],
    "completions": lambda answer: [{"role": "assistant", "content": answer.response}],
}


def load_function(spec: str, columns: Collection[str] = (), conversational: bool = False) -> TextReward:
    """Load ``path/to/file.py:function``. The file is executed; nothing is added to ``sys.path``.

    Args:
        spec: the file and the function (or any callable) in it.
        columns: metadata columns of the data, which the function may ask for. A name in the list above comes first.
        conversational: the data hold prompts as lists of turns.

    Raises:
        UserError: the file cannot be loaded, or the function asks for what there is not.
    """
    path, _, name = spec.rpartition(":")
    found = vars(run_file(Path(path)))
    function = found.get(name)
    if not callable(function):
        known = [key for key, value in found.items() if callable(value)]
        raise UserError(f"rollout.reward: {path} has no function '{name}'{nearest(name, known)}")
    cells = {column: _column(column) for column in columns}
    cells |= {**_ALWAYS, **(_OF_CONVERSATIONS if conversational else _OF_TEXTS)}
    asked = {key: cells[key] for key in _asked(spec, function, cells)}
    return TextReward(_Function(spec, function, asked), identity=f"{name} of {fingerprint.of_file(path)}")


def _column(name: str) -> _Cell:
    return lambda answer: answer.meta.get(name)


def _asked(spec: str, function: Callable[..., Any], known: Collection[str]) -> list[str]:
    """The names among ``known`` that the function's parameters ask for."""
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if not optional and (parameter.name not in known or parameter.kind is parameter.POSITIONAL_ONLY):
            raise UserError(
                f"rollout.reward: {spec} asks for '{parameter.name}', which there is not"
                f"{nearest(parameter.name, known)} (there is {', '.join(sorted(known))})"
            )
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return list(known)
    return [parameter.name for parameter in parameters if parameter.name in known]


class _Fault(Exception):
    """What is wrong with what a function did: in words, and which of its responses it was, where that is known."""

    def __init__(self, text: str, place: int | None = None) -> None:
        super().__init__(text)
        self.place = place


@dataclass(frozen=True)
class _Function:
    """The function with what it is called with."""

    spec: str
    function: Callable[..., Any]
    asked: Mapping[str, _Cell]

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """Call it on all answers at once, and name the culprit of what goes wrong."""
        try:
            return self._try(answers)
        except _Fault as fault:
            raise RunError(f"rollout.reward: {self.spec}: {self._blame(answers, fault)}") from fault.__cause__

    def _try(self, answers: Sequence[Answer]) -> list[float | None]:
        given = {name: [cell(answer) for answer in answers] for name, cell in self.asked.items()}
        try:
            scores = self.function(**given)
            scores = list(asyncio.run(scores) if inspect.iscoroutine(scores) else scores)
        except Exception as error:
            raise _Fault(_last_line(error)) from error
        if len(scores) != len(answers):
            raise _Fault(f"gave {len(scores)} numbers for {len(answers)} responses; it must give one for each")
        return [_number(score, place) for place, score in enumerate(scores)]

    def _blame(self, answers: Sequence[Answer], fault: _Fault) -> str:
        """The fault with the response that it is about; if unknown, the first that goes wrong when alone."""
        if fault.place is not None:
            return f"{fault}; {answers[fault.place].quote()}"
        for answer in answers:
            try:
                self._try([answer])
            except _Fault as alone:
                return f"{alone}; {answer.quote()}"
        return f"{fault}; each of the {len(answers)} responses alone goes through, the first is {answers[0].quote()}"


def _number(score: Any, place: int) -> float | None:
    if score is None:
        return None
    try:
        value = math.nan if isinstance(score, str) else float(score)
    except (TypeError, ValueError, RuntimeError):
        value = math.nan
    if not abs(value) <= _LARGEST:  # also where it is no number
        raise _Fault(f"gave {score!r}, which is no finite number; return None where it does not apply", place)
    return value


def _last_line(error: Exception) -> str:
    """The last line of the traceback, and where in which file it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{traceback.format_exception_only(error)[-1].strip()} ({Path(frame.filename).name}:{frame.lineno})"
