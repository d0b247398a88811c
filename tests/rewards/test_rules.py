"""Rules: what they must tell apart, and that no response whatever breaks them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from answers import answer
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.errors import UserError
from trueup.rewards.rules import RULES, last_number, make_rule

SAMPLES: dict[str, dict[str, Any]] = {
    "exact": {},
    "number": {},
    "regex": {"pattern": "[0-9]+"},
    "json_schema": {"schema": {"type": "object", "required": ["a"], "properties": {"a": {"type": "array"}}}},
    "words": {"at_least": 2, "at_most": 4, "slope": 0.3},
    "length": {"at_most": 3},
    "contains": {"text": ["a", "b", "c"]},
    "starts_with": {"text": "a"},
    "format": {"template": "<answer>...</answer>"},
}


def score(
    rule: str, response: str, tokens: int = 2, meta: dict[str, Any] | None = None, **options: Any
) -> float | None:
    (value,) = make_rule(rule, options).score([answer(response, tokens=tokens, **(meta or {}))])
    return value


def test_every_rule_is_sampled() -> None:
    assert set(SAMPLES) == set(RULES)


@settings(max_examples=40)
@pytest.mark.parametrize("rule", RULES)
@given(
    st.one_of(st.text(), st.text("<>answer/.,0123456789-{}[]\"' \n"), st.recursive(st.none(), st.lists).map(json.dumps))
)
def test_any_response_gets_a_share(rule: str, response: str) -> None:
    value = score(rule, response, meta={"answer": "42"}, **SAMPLES[rule])
    assert value is not None and 0.0 <= value <= 1.0


@pytest.mark.parametrize(
    ("response", "wanted", "value"),
    [
        (" The  Moon.\n", "the moon", 1.0),
        ("the moon", "sun", 0.0),
        ("the moon is full", "the moon", 0.0),
        ("themoon", "the moon", 0.0),
        ("ﬁve", "FIVE", 1.0),
        ("7", 7, 1.0),
        ("sun", ["moon", "Sun"], 1.0),
        ("", "", 1.0),
        ("x", None, None),
    ],
)
def test_exact(response: str, wanted: Any, value: float | None) -> None:
    assert score("exact", response, meta={"answer": wanted}) == value


def test_exact_to_the_letter() -> None:
    for response, value in ((" Moon ", 1.0), ("moon", 0.0), ("Moon.", 0.0)):
        assert score("exact", response, meta={"word": "Moon"}, column="word", normalise=False) == value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("10-3", 3),
        ("x = -3.", -3),
        ("\N{MINUS SIGN}7 or so", -7),
        ("$1,234.50 in all", 1234.5),
        ("12,345,6", 6),
        ("1,2345", 2345),
        ("#### 72", 72),
        ("it is...5", 5),
        ("half is .5", 0.5),
        ("2.5e3 m", 2500),
        ("**42**", 42),
        ("first 5km, then v2", 5),
        ("version 1.2.3", 1.2),
        ("none at all", None),
        ("", None),
    ],
)
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["{}", "so {}.", "1 or 2? ({})", "${}\n"]))
def test_a_number_is_read_as_it_was_written(number: float, around: str) -> None:
    assert last_number(around.format(repr(number))) == number


@given(st.integers(-(10**12), 10**12))
def test_thousands_may_be_set_apart(number: int) -> None:
    assert last_number(f"in all {number:,}") == number


def test_number_is_compared_within_the_tolerance() -> None:
    assert score("number", "about 3.14", meta={"answer": math.pi}, tolerance=1e-3) == 1.0
    assert score("number", "about 3.14", meta={"answer": math.pi}) == 0.0
    assert score("number", "1000001", meta={"answer": "so it is 1,000,000"}, tolerance=2e-6) == 1.0
    assert score("number", "0.001", meta={"answer": 0}, tolerance=2e-3) == 1.0
    assert score("number", "no idea", meta={"answer": 0}) == 0.0
    assert score("number", "4", meta={"answer": None}) is None


def test_an_answer_without_a_number_is_the_data_s_fault() -> None:
    with pytest.raises(UserError, match=r"prompts.jsonl:3: field 'answer' holds no number \('four'\)"):
        score("number", "4", meta={"answer": "four"})


def test_regex_searches_or_matches_all() -> None:
    assert [score("regex", "a 12 b", pattern=r"\d+", full=full) for full in (False, True)] == [1.0, 0.0]
    assert score("regex", "12\n", pattern=r"\d+", full=True) == 0.0


@pytest.mark.parametrize(("count", "value"), [(0, 0.4), (1, 0.7), (2, 1.0), (3, 1.0), (4, 0.7), (7, 0.0), (99, 0.0)])
def test_words_outside_cost_by_the_word(count: int, value: float) -> None:
    assert score("words", " w\n" * count, at_least=2, at_most=3, slope=0.3) == pytest.approx(value)
    assert score("words", " w\n" * count, at_least=2, at_most=3) == float(count in (2, 3))


def test_length_counts_tokens() -> None:
    assert [score("length", "one", tokens=n, at_most=4) for n in (0, 4, 5)] == [1.0, 1.0, 0.0]


def test_contains_gives_the_share_and_starts_with_any() -> None:
    assert score("contains", "Red and blue", text=["red", "blue", "green", "pink"]) == 0.5
    assert score("contains", "Red and blue", text="red", ignore_case=False) == 0.0
    assert score("contains", "red", meta={"must": ["red", "sun"]}, column="must") == 0.5
    assert score("contains", "red", meta={"must": []}, column="must") is None
    assert score("starts_with", "\n Sure, red", text=["yes", "sure"]) == 1.0
    assert score("starts_with", "I am sure", text=["yes", "sure"]) == 0.0


THINK = "<think>...</think> <answer>...</answer>"


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        (" <think>\na\nb\n</think>\n\n<answer>c</answer>\n", 1.0),
        ("<think></think><answer>b</answer>", 0.0),
        ("<think>a</think><answer> </answer>", 0.0),
        ("<think>a</think>so <answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer> and more", 0.0),
        ("<think>a <answer> </think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer><answer>b</answer>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("", 0.0),
    ],
)
def test_format(response: str, value: float) -> None:
    assert score("format", response, template=THINK) == value


def test_words_of_a_template_may_occur_inside_others() -> None:
    assert score("format", "The answer is this: 4", template="The answer is ...") == 1.0


def test_within_judges_the_last_place_alone() -> None:
    inside = {"within": "<answer>...</answer>", "meta": {"answer": "4"}}
    assert score("exact", "<answer>5</answer> no: <answer> 4 </answer> done", **inside) == 1.0
    assert score("exact", "<answer>4</answer> no: <answer>5</answer>", **inside) == 0.0
    assert score("exact", "4", **inside) == 0.0
    assert score("exact", "4", within="<answer>...</answer>", meta={"answer": None}) is None
    assert score("number", "Answer: 3. Or no. Answer: 4 kg", within="Answer: ...", meta={"answer": 4}) == 1.0
    # What is absent must not count as an empty text that is short enough.
    assert score("words", "no tags", within="<answer>...</answer>", at_most=3) == 0.0


@pytest.mark.parametrize(
    ("rule", "options", "said"),
    [
        ("exat", {}, "unknown rule 'exat'; did you mean 'exact'?"),
        ("exact", {"colunm": "a"}, "unknown option 'colunm'; did you mean 'column'?"),
        ("regex", {}, "needs the option 'pattern'"),
        ("regex", {"pattern": "("}, "not a regular expression"),
        ("number", {"tolerance": -1}, "option tolerance: .*greater than or equal to 0"),
        ("words", {}, "give at_least, at_most or both"),
        ("words", {"at_least": 5, "at_most": 4}, "at_least not above at_most"),
        ("words", {"at_most": "many"}, "option at_most: .*'many'"),
        ("length", {"at_most": 4, "within": "a..."}, "unknown option 'within'"),
        ("contains", {"text": "a", "column": "b"}, "either text .* or column"),
        ("format", {"template": "no gap"}, "write fixed text, and ..."),
        ("exact", {"within": "..."}, "write fixed text, and ..."),
        ("json_schema", {"schema": {"typ": "object"}}, "'typ' is not among .*did you mean 'type'?"),
    ],
)
def test_refusals_name_the_rule_and_the_remedy(rule: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        make_rule(rule, options)
    assert str(error.value).startswith("rollout.reward: ") and rule in str(error.value)


def test_identity_tells_options_apart() -> None:
    one, other = make_rule("words", {"at_most": 3}), make_rule("words", {"at_most": 4})
    assert one.identity != other.identity and one.identity == make_rule("words", {"at_most": 3}).identity
