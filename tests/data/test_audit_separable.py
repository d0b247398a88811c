"""Source separability: a planted style is found, noise is not, and what a prompt gives away does not count."""

from __future__ import annotations

import random
from typing import Any

import pytest
from audit_rows import examples, judged, pairs

from trueup.data.audit_separable import FEWEST_FAMILIES, separability

WORDS = ("red", "green", "blue", "round", "square", "small", "big", "near", "far", "one", "two", "three", "sun", "moon")


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(6, 14))) + "."


def found(sheet: Any) -> dict[str, Any]:
    answer = separability(sheet)
    assert answer is not None
    return answer


def test_sides_from_one_writer_cannot_be_told_apart() -> None:
    low = high = 0
    for seed in range(4):
        rng = random.Random(seed)
        accuracy = found(pairs([(f"p{i}", sentence(rng), sentence(rng)) for i in range(200)]))["accuracy"]
        low, high = low + (accuracy["low"] <= 0.5), high + (accuracy["high"] >= 0.5)
        assert abs(accuracy["estimate"] - 0.5) < 0.12
    assert low >= 3 and high >= 3


def test_a_habit_of_one_writer_is_found_and_named() -> None:
    rng = random.Random(0)
    rows = [(f"p{i}", sentence(rng) + " Indeed!" * (i % 5 > 0), sentence(rng)) for i in range(200)]
    answer = found(pairs(rows))
    # Four of five pairs carry it; of the others half are right by chance.
    assert answer["accuracy"]["estimate"] == pytest.approx(0.9, abs=0.06)
    assert any("!" in piece["piece"] or "ndee" in piece["piece"] for piece in answer["telling"])
    for piece in answer["telling"]:
        assert piece["wanted"] == pytest.approx(0.8, abs=0.01) and piece["unwanted"] < 0.01


def test_swapped_sides_are_as_separable() -> None:
    rng = random.Random(1)
    rows = [(f"p{i}", sentence(rng) + " Indeed!", sentence(rng)) for i in range(120)]
    straight, swapped = (found(pairs(side))["accuracy"] for side in (rows, [(p, r, c) for p, c, r in rows]))
    assert straight["estimate"] == pytest.approx(swapped["estimate"]) and straight["estimate"] > 0.95


def test_rows_of_one_prompt_are_never_on_both_sides_of_the_split() -> None:
    """Each prompt has two words of its own, and a coin said which is wanted: one of its rows tells all of them."""
    rng, rows = random.Random(2), []
    for i in range(80):
        first, second = ("".join(rng.choices("bcdfghjklmnpqrstvwxz", k=12)) for _ in range(2))
        rows += [(f"p{i}", f"{sentence(rng)} {first}", f"{sentence(rng)} {second}") for _ in range(8)]
    assert abs(found(pairs(rows))["accuracy"]["estimate"] - 0.5) < 0.12


def test_a_response_that_returns_under_another_prompt_is_never_on_both_sides_of_the_split() -> None:
    rng = random.Random(5)
    answers = [(sentence(rng) * 2, sentence(rng) * 2) for _ in range(80)]
    rows = [(f"p{i} {version}", *answer) for version in range(6) for i, answer in enumerate(answers)]
    answer = found(pairs(rows))
    assert answer["families"] == 80
    assert answer["accuracy"]["estimate"] < 0.8  # noise from 80 answers spreads far; a model that has seen them gets 1


def test_a_short_answer_that_everybody_gives_links_nothing() -> None:
    rng = random.Random(6)
    assert found(pairs([(f"p{i}", "Yes.", sentence(rng)) for i in range(90)]))["families"] == 90


def test_judged_rows() -> None:
    rng = random.Random(4)
    rows = [(f"p{i}", sentence(rng) + (" Indeed!" if i % 3 else ""), bool(i % 3)) for i in range(240)]
    assert found(judged(rows))["accuracy"]["low"] > 0.95
    noise = found(judged([(prompt, sentence(rng), label) for prompt, _, label in rows]))["accuracy"]
    assert noise["low"] < 0.5 < noise["high"] or abs(noise["estimate"] - 0.5) < 0.1


def test_too_little_is_no_answer() -> None:
    rows = [(f"p{i}", "a", "b") for i in range(FEWEST_FAMILIES - 1)]
    assert separability(pairs(rows)) is None
    assert separability(pairs(rows * 3)) is None
    assert separability(examples([(f"p{i}", "a") for i in range(99)])) is None
