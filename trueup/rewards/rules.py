"""Rules: rewards that can be computed from the text of a response, each a number in [0, 1].

A rule is made by a factory of the table ``RULES``; the factory's keyword arguments are the rule's options. A rule that
compares with a column of the data does not apply (None) to rows that have nothing there.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from trueup.errors import UserError, nearest
from trueup.rewards.json_schema import check_schema, satisfies
from trueup.rewards.options import make
from trueup.rewards.protocol import Answer, TextReward
from trueup.rewards.template import Template

NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Texts = str | list[str]


@dataclass(frozen=True)
class Rule:
    """A function of one answer, and the metadata columns that it reads."""

    score: Callable[[Answer], float | None]
    columns: tuple[str, ...] = ()


def exact(column: str = "answer", normalise: bool = True) -> Rule:
    """1 if the response is the text in ``column``, or one of the texts if that is a list; else 0.

    Blanks around both are left out. With ``normalise`` also upper and lower case, Unicode's compatible forms (NFKC),
    the number of blanks between words and a full stop at the end make no difference.
    """
    tidy = _normal if normalise else str.strip

    def score(answer: Answer) -> float | None:
        wanted = answer.meta.get(column)
        return None if wanted is None else float(tidy(answer.response) in map(tidy, _texts(wanted)))

    return Rule(score, (column,))


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).removesuffix(".").rstrip()


def _texts(cell: Any) -> list[str]:
    return [str(text) for text in (cell if isinstance(cell, list | tuple) else [cell])]


def number(column: str = "answer", tolerance: NonNegative = 1e-6) -> Rule:
    """1 if the last number x of the response is the number y in ``column``; else 0, also without any number.

    Equal means |x - y| <= tolerance * max(1, |y|). Thousands may be set apart by commas. A text in ``column`` counts as
    the last number in it, so that a worked solution may stand there. Fractions and units are not read.
    """

    def score(answer: Answer) -> float | None:
        cell = answer.meta.get(column)
        if cell is None:
            return None
        wanted, found = _told_number(answer, column, cell), last_number(answer.response)
        return float(found is not None and abs(found - wanted) <= tolerance * max(1.0, abs(wanted)))

    return Rule(score, (column,))


def _told_number(answer: Answer, column: str, cell: Any) -> float:
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    found = float(cell) if is_number else last_number(str(cell))
    if found is None or not math.isfinite(found):
        raise UserError(f"{answer.where}: field '{column}' holds no number ({cell!r}), which the rule 'number' needs")
    return found


_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_MINUS = "\N{MINUS SIGN}"
_NUMBER = re.compile(rf"(?<![A-Za-z0-9])(?<!\d\.)[-{_MINUS}]?(?:{_WHOLE}|(?<!\.)\.\d+)(?:[eE][-+]?\d+)?")


def last_number(text: str) -> float | None:
    """The last number in a text that is not glued to a letter before it; None if there is none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace(_MINUS, "-")) if found else None


def regex(pattern: str, full: bool = False) -> Rule:
    """1 if the pattern of `re` occurs in the response, or with ``full`` matches all of it; else 0."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    matches = compiled.fullmatch if full else compiled.search
    return Rule(lambda answer: float(matches(answer.response) is not None))


def json_schema(schema: dict[str, Any]) -> Rule:
    """1 if the response is JSON and keeps to the schema (a part of JSON Schema: see `json_schema`); else 0."""
    check_schema(schema)

    def score(answer: Answer) -> float:
        try:
            value = json.loads(answer.response, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return 0.0
        return float(satisfies(value, schema))

    return Rule(score)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _between(
    count: Callable[[Answer], int], at_least: Count = 0, at_most: Count | None = None, slope: NonNegative | None = None
) -> Rule:
    """1 if the count is between the bounds, which count as inside; else 0.

    With ``slope`` the score falls by so much for each one outside, down to 0.
    """
    highest = math.inf if at_most is None else at_most
    if highest < at_least or (at_least == 0 and at_most is None):
        raise UserError("give at_least, at_most or both, at_least not above at_most")

    def score(answer: Answer) -> float:
        found = count(answer)
        outside = max(at_least - found, found - highest, 0)
        return 1.0 if not outside else 0.0 if slope is None else max(0.0, 1.0 - slope * outside)

    return Rule(score)


def contains(text: Texts | None = None, column: str | None = None, ignore_case: bool = True) -> Rule:
    """The share of the texts that occur in the response: those of ``text``, or those in ``column``."""
    return _on_texts(lambda hay, needles: sum(n in hay for n in needles) / len(needles), text, column, ignore_case)


def starts_with(text: Texts | None = None, column: str | None = None, ignore_case: bool = True) -> Rule:
    """1 if the response starts with one of the texts, blanks before it left out; else 0."""
    return _on_texts(lambda hay, needles: float(hay.lstrip().startswith(needles)), text, column, ignore_case)


def _on_texts(
    compare: Callable[[str, tuple[str, ...]], float], text: Texts | None, column: str | None, ignore_case: bool
) -> Rule:
    if (text is None) == (column is None) or text in ("", []):
        raise UserError("give either text (one or a list) or column (where the data have it)")
    fold = str.casefold if ignore_case else str

    def score(answer: Answer) -> float | None:
        wanted = text if column is None else answer.meta.get(column)
        needles = () if wanted is None else tuple(map(fold, _texts(wanted)))
        return compare(fold(answer.response), needles) if needles else None

    return Rule(score, () if column is None else (column,))


def format_(template: str) -> Rule:
    """1 if the response has the form of the template, where ``...`` stands for any text that is not blank; else 0.

    Blanks of the template stand for any blanks or none, blanks around the response do not count, and each fixed piece
    must occur as often as in the template: a response that says it twice scores 0.
    """
    form = Template(template)
    return Rule(lambda answer: float(form.fits(answer.response)))


RULES: Mapping[str, Callable[..., Rule]] = MappingProxyType(
    {
        "exact": exact,
        "number": number,
        "regex": regex,
        "json_schema": json_schema,
        "words": partial(_between, lambda answer: len(answer.response.split())),
        "length": partial(_between, lambda answer: len(answer.tokens)),
        "contains": contains,
        "starts_with": starts_with,
        "format": format_,
    }
)
"""Name -> factory. ``words`` counts words between blanks, ``length`` response tokens, the terminator included."""


def make_rule(name: str, options: Mapping[str, Any] = MappingProxyType({})) -> TextReward:
    """Make the rule of this name.

    Args:
        name: a key of ``RULES``.
        options: keyword arguments of its factory. Every rule but ``length`` also has ``within``, a template such as
            ``<answer>...</answer>``: only what stands for its last ``...`` is judged, and a response without it
            scores 0.

    Raises:
        UserError: the rule or an option is unknown, or an option is wrong.
    """
    if name not in RULES:
        raise UserError(f"rollout.reward: unknown rule '{name}'{nearest(name, RULES)} (known: {', '.join(RULES)})")
    what, own = f"rollout.reward: rule '{name}'", dict(options)
    inside = {"template": own.pop("within")} if "within" in own and name != "length" else {}
    rule = make(what, RULES[name], own)
    if inside:
        rule = make(what, partial(within, rule), inside)
    identity = json.dumps({"rule": name, **options}, sort_keys=True, default=str)
    return TextReward(lambda answers: [rule.score(answer) for answer in answers], rule.columns, identity)


def within(rule: Rule, template: str) -> Rule:
    """The rule on what stands for a template's last ``...``, where it last occurs in the response; 0 without it."""
    form = Template(template)

    def score(answer: Answer) -> float | None:
        part = form.last_gap(answer.response)
        found = rule.score(replace(answer, response=part or ""))
        return 0.0 if part is None and found is not None else found

    return replace(rule, score=score)
