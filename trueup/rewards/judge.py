"""A language model as judge, behind an endpoint of one's own or another's. Nothing is sent unless one is configured."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Annotated, Any

from pydantic import Field

from trueup.errors import RunError, UserError
from trueup.rewards.endpoint import Endpoint
from trueup.rewards.protocol import Answer, TextReward, shorten
from trueup.runtime.cache import cache_folder

TEMPLATE = """Judge how well the response answers the prompt, from 0 (useless) to 10 (could not be better).
Reply with one short sentence, then with a line "Score: N".

[Prompt]
{prompt}

[Response]
{response}"""
"""The question where none is configured."""

SCORE = r"[Ss]core:\s*(-?\d+(?:\.\d+)?)"
"""Where the number is in an answer to it."""

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Scale:
    """How an answer becomes a score: the last match of a pattern, from ``low``..``high`` to 0..1."""

    pattern: re.Pattern[str]
    low: float
    high: float

    def read(self, answer: str) -> float:
        """The score in [0, 1].

        Raises:
            RunError: there is no number in it, or one that is not on the scale; shows the answer.
        """
        group = min(1, self.pattern.groups)  # all of the match, if the pattern has no group
        found = [match[group] for match in self.pattern.finditer(answer)]
        try:
            value = float(found[-1])
        except (IndexError, TypeError, ValueError):
            why = f"has no number where {self.pattern.pattern!r} looks for it"
            raise RunError(f"judge: the answer {why}: {shorten(answer)}") from None
        if not self.low <= value <= self.high:
            raise RunError(
                f"judge: {value:g} is not from {self.low:g} to {self.high:g}, in the answer {shorten(answer)}"
            )
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class _Judge:
    """The judge as a function of answers."""

    endpoint: Endpoint
    template: str
    request: Mapping[str, Any]
    scale: Scale
    workers: int
    folder: Path

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """Ask every different question once, several at a time; the first that fails stops the others."""
        questions = [_filled(self.template, answer) for answer in answers]
        first: dict[str, Answer] = {}
        for question, answer in zip(questions, answers, strict=True):
            if question is not None:
                first.setdefault(question, answer)
        stop = Event()
        with ThreadPoolExecutor(self.workers) as pool:
            asked = {question: pool.submit(self._score, question, stop) for question in first}
            try:
                done, _ = wait(asked.values(), return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        for question, future in asked.items():
            # What failed later may have failed for being stopped.
            if future in done and (error := future.exception()) is not None:
                raise RunError(f"rollout.reward: {error}; on the {first[question].quote()}") from error
        return [None if question is None else asked[question].result() for question in questions]

    def _score(self, question: str, stop: Event) -> float:
        body = {**self.request, "messages": [{"role": "user", "content": question}]}
        key = json.dumps([self.endpoint.url, body], sort_keys=True)
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.txt"
        with suppress(FileNotFoundError, RunError):  # kept for another pattern, perhaps
            return self.scale.read(path.read_text(encoding="utf-8"))
        answer = self.endpoint.ask(body, stop)
        score = self.scale.read(answer)  # what cannot be read is not kept: it may be asked again
        _keep(path, answer)
        return score


def _filled(template: str, answer: Answer) -> str | None:
    """The question about an answer; None where the row has nothing in a column that it needs."""
    turns = answer.prompt
    asked = turns[0].content if len(turns) == 1 else "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
    values = {**answer.meta, "prompt": asked, "response": answer.response}
    if any(values.get(name) is None for name in _PLACE.findall(template)):
        return None
    return _PLACE.sub(lambda place: str(values[place[1]]), template)


_PLACE = re.compile(r"\{(\w+)\}")


def _keep(path: Path, answer: str) -> None:
    """Write a file that is complete or absent, whoever else writes the same."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8", errors="replace") as aside:
        aside.write(answer)
    Path(aside.name).replace(path)


def make_judge(
    judge: Annotated[str, Field(pattern=r"^https?://")],
    model: str,
    prompt: str = TEMPLATE,
    score: str = SCORE,
    scale: tuple[float, float] = (0.0, 10.0),
    key_variable: str | None = None,
    timeout: Positive = 60.0,
    retries: Annotated[int, Field(ge=0)] = 4,
    backoff: Positive = 1.0,
    workers: Annotated[int, Field(ge=1)] = 8,
    body: dict[str, Any] | None = None,
) -> TextReward:
    """Make a judge.

    Args:
        judge: base of the endpoint, such as ``http://localhost:8000/v1``.
        model: its name there.
        prompt: the question, with ``{prompt}``, ``{response}`` and the columns of the data in braces.
        score: where in the answer the number is: the pattern's first group at its last match.
        scale: lowest and highest number; they become 0 and 1.
        key_variable: environment variable that holds the key; None sends none.
        timeout: see `Endpoint`.
        retries: see `Endpoint`.
        backoff: see `Endpoint`.
        workers: questions under way at a time.
        body: further fields of the request; None is a temperature of 0.

    Raises:
        UserError: an option is wrong, or the key is not in the environment.
    """
    if scale[0] >= scale[1]:
        raise UserError(f"scale: {list(scale)} must be lowest, then highest")
    places = tuple(dict.fromkeys(_PLACE.findall(prompt)))
    if "response" not in places:
        raise UserError("prompt: the question must hold {response}, or every response would get the same score")
    endpoint = Endpoint(judge, _key(key_variable), timeout, retries, backoff)
    request = {"model": model, **({"temperature": 0} if body is None else body)}
    function = _Judge(endpoint, prompt, request, Scale(_compiled(score), *scale), workers, _folder())
    identity = json.dumps({"judge": request, "prompt": prompt, "score": score, "scale": scale}, sort_keys=True)
    columns = tuple(place for place in places if place not in ("prompt", "response"))
    return TextReward(function, columns, identity)


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not re.fullmatch(r"[A-Za-z_]\w*", variable):  # perhaps the key itself: it is not repeated
        raise UserError("key_variable: is the name of an environment variable, not the key")
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UserError(f"key_variable: the environment variable {variable} is not set, or holds what is no key")
    return key


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"score: {pattern!r} is not a regular expression: {error}") from None


def _folder() -> Path:
    folder = cache_folder() / "judge"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot keep answers there ({error}); set TRUEUP_CACHE to another folder") from None
    return folder
