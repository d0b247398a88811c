"""Length and surface: what is planted is found with its size, and swapping the sides turns the sign."""

from __future__ import annotations

import pytest
from audit_rows import examples, judged, pairs
from hypothesis import given
from hypothesis import strategies as st

from trueup.data.audit_bias import TELLS, length_bias, markers, tells
from trueup.data.audit_sheet import Sheet

HAVE = {
    "opens with assent (Sure, Of course)": ["Sure, here it is.", " certainly!", "Of course."],
    "opens with a refusal or apology": [
        "I’m sorry, but no.",
        "I cannot do that.",
        "I'm really sorry.",
        "As an AI, no.",
    ],
    "speaks of itself as an AI": ["Being an AI language model.", "I am an AI assistant."],
    "has a list": ["Do:\n- one\n- two", "1. first"],
    "has a heading": ["## Title\ntext"],
    "has bold text": ["a **b** c"],
    "has a code block": ["```py\nx\n```"],
    "has a line break": ["a\nb"],
    "has an exclamation mark": ["Hi! There."],
    "has characters beyond ASCII": ["café."],
    "ends with a question": ["Which one? "],
    "ends without final punctuation": ["and then the", "yes "],
    "begins with white space": [" a.", "\na."],
    "ends with white space": ["a. ", "a.\n"],
}
LACK = {
    "opens with assent (Sure, Of course)": ["Surely not.", "It is certainly so."],
    "opens with a refusal or apology": ["He said he was sorry.", "I can do that.", "I candidly agree."],
    "speaks of itself as an AI": ["Said the captain.", "She is an aide."],
    "has a list": ["A - b", "1.5 metres", "-5 degrees"],
    "has a heading": ["#hashtag", "C# code"],
    "has bold text": ["2 * 3 * 4"],
    "has a code block": ["`x`"],
    "has a line break": ["a.\n"],
    "has an exclamation mark": ["Hi."],
    "has characters beyond ASCII": ["cafe."],
    "ends with a question": ["Which? That."],
    "ends without final punctuation": ["Done.", "(see above)", "```\nx\n```", "what?\n"],
    "begins with white space": ["a."],
    "ends with white space": ["a."],
}


@pytest.mark.parametrize("tell", TELLS)
def test_a_tell_is_seen_where_it_is_and_only_there(tell: str) -> None:
    assert all(TELLS[tell](text) for text in HAVE[tell])
    assert not any(TELLS[tell](text) for text in LACK[tell])


def test_shares_of_a_tell_and_their_difference() -> None:
    rows = [(f"p{i}", "Sure." if i < 6 else "No.", "Sure." if i < 1 else "No.") for i in range(10)]
    found = tells(pairs(rows))["opens with assent (Sure, Of course)"]
    assert (found["wanted"], found["unwanted"]) == (0.6, 0.1)
    difference = found["difference"]
    assert difference["estimate"] == pytest.approx(0.5) and difference["low"] < 0.5 < difference["high"]
    only = tells(examples([("p", "Sure.")]))["opens with assent (Sure, Of course)"]
    assert (only["wanted"], only["unwanted"], only["difference"]["estimate"]) == (1.0, None, None)


def measured(sheet: Sheet) -> dict:
    found = length_bias(sheet, [len(t) for t in sheet.wanted.texts], [len(t) for t in sheet.unwanted.texts], "letters")
    assert found is not None
    return found


def test_the_longer_wins() -> None:
    rows = [(f"p{i}", "long answer", "short") for i in range(3)] + [("q", "a", "longer"), ("r", "same", "also")]
    found = measured(pairs(rows))
    assert (found["longer"], found["equal"]) == (0.6, 0.2)
    assert found["longer_wins"]["estimate"] == pytest.approx(0.7)
    assert found["wanted"] == {"mean": pytest.approx(7.6), "median": 11.0}
    assert length_bias(examples([("p", "a")]), [1], [], "letters") is None


LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=15)


@given(LENGTHS)
def test_swapping_the_sides_mirrors_everything(lengths: list[tuple[int, int]]) -> None:
    rows = [(f"p{i % 4}", "a" * good, "b" * bad) for i, (good, bad) in enumerate(lengths)]
    found, mirrored = measured(pairs(rows)), measured(pairs([(p, r, c) for p, c, r in rows]))
    assert mirrored["longer_wins"]["estimate"] == pytest.approx(1 - found["longer_wins"]["estimate"])
    assert mirrored["cliffs_delta"]["estimate"] == pytest.approx(-found["cliffs_delta"]["estimate"])


def test_judged_rows_are_compared_across_prompts() -> None:
    found = measured(judged([("p", "aaa", True), ("q", "aa", False), ("r", "a", True), ("s", "a", False)]))
    # aaa beats aa and a; a loses to aa and ties with a.
    assert found["longer_wins"]["estimate"] == pytest.approx(2.5 / 4) and found["longer"] is None


def test_markers_of_chat_formats() -> None:
    rows = [
        ("p", "a\nHuman: more", "b"),
        ("p", "fine", "x <|im_end|>"),
        ("p", "Dear Human: hi", "a | b"),
        ("p", "[INST]", "c"),
    ]
    found = markers(pairs(rows))
    assert (found["count"], found["of"]) == (3, 8)
    assert set(found["places"]) == {"f:1 (Human:)", "f:2 (<|im_end|>)", "f:4 ([INST])"}
